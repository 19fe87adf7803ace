//! Rules of other programs as configurations: what becomes of them, and that it can be used.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use wvs::config::Severity;
use wvs::import::{INPUT_OCTETS_MAX, Import, ImportError, Source, import};
use wvs_tests::program::{self, show};

const SOURCES: [(&str, Source); 2] =
    [("ipvsadm", Source::Ipvsadm), ("keepalived", Source::Keepalived)];

/// The files with rules of one program.
fn files(program: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(program);
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// What keeps the configuration from being a good one.
fn errors(imported: &Import) -> Vec<String> {
    let problems = imported.reading.problems().iter();
    let errors = problems.filter(|problem| problem.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

#[test]
fn rules_become_a_configuration_and_notes() {
    for (program, source) in SOURCES {
        for file in files(program) {
            let text = fs::read_to_string(&file).unwrap();
            let name = file.file_name().unwrap().to_str().unwrap();
            let imported = import(source, name, &text).unwrap_or_else(|error| panic!("{error}"));
            let mut shown = String::new();
            for note in &imported.notes {
                writeln!(shown, "{note}").unwrap();
            }
            writeln!(shown, "\n{}", imported.yaml).unwrap();
            insta::assert_snapshot!(format!("{program}-{name}"), shown);
        }
    }
}

#[test]
fn what_is_written_is_a_good_configuration_with_as_many_servers() {
    for (program, source) in SOURCES {
        for file in files(program) {
            let imported = import(source, "x", &fs::read_to_string(&file).unwrap()).unwrap();
            assert_eq!(errors(&imported), [""; 0], "{}", file.display());
            let services = &imported.reading.config().services;
            assert_eq!(services.len(), imported.services);
            let servers = services.iter().map(|service| service.servers.len()).sum::<usize>();
            assert_eq!(servers, imported.servers);
        }
    }
}

#[test]
fn every_note_is_a_comment_at_its_place() {
    for (program, source) in SOURCES {
        for file in files(program) {
            let imported = import(source, "x", &fs::read_to_string(&file).unwrap()).unwrap();
            // Comments as they were before they were wrapped.
            let text: Vec<_> = imported.yaml.lines().map(str::trim_start).collect();
            let text = text.join("\n").replace("\n#   ", " ") + "\n";
            for note in &imported.notes {
                assert!(text.contains(&format!("\n# {note}\n")), "{note}\n{text}");
            }
        }
    }
}

#[test]
fn rules_without_a_service_are_refused_with_the_reasons() {
    for (source, text, lines) in [
        (Source::Ipvsadm, "", vec![]),
        (Source::Ipvsadm, "-A -f 1 -s rr\n", vec![1]),
        (Source::Ipvsadm, "-A -t 127.0.0.1:80\nnonsense\n", vec![1, 2]),
        (Source::Keepalived, "", vec![]),
        (Source::Keepalived, "vrrp_instance a {\n}\nvirtual_server fwmark 1 {\n}\n", vec![1, 3]),
        (Source::Keepalived, "virtual_server group none {\n}\n}}}", vec![1, 3, 3, 3]),
    ] {
        match import(source, "x", text) {
            Err(ImportError::NoService { notes }) => {
                assert_eq!(notes.iter().map(|note| note.line).collect::<Vec<_>>(), lines, "{text}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn rules_that_are_too_many_are_refused() {
    let text = "#".repeat(INPUT_OCTETS_MAX + 1);
    assert_eq!(import(Source::Ipvsadm, "x", &text).err(), Some(ImportError::TooLarge));
    let services = |number: usize| {
        (0..number)
            .map(|number| format!("-A -t 10.{}.{}.1:80\n", number / 256, number % 256))
            .collect::<String>()
    };
    let imported = import(Source::Ipvsadm, "x", &services(4_097)).unwrap();
    assert_eq!(imported.services, 4_096);
    assert_eq!(imported.notes.len(), 1, "{:?}", imported.notes);
    assert!(imported.notes[0].to_string().contains("at most 4096 services"));
    // Each service as full as it can be: more than one file can have.
    let servers: String = (0..60_000)
        .map(|number| {
            let (service, server) = (number / 4_000, number % 4_000);
            let address = format!("192.168.{}.{}", server / 250, server % 250 + 1);
            format!("-a -t 10.0.{service}.1:80 -r {address}:80 -m -w 2\n")
        })
        .collect();
    let imported = import(Source::Ipvsadm, "x", &(services(15) + &servers)).unwrap();
    assert_eq!(imported.servers, 60_000);
    let errors = errors(&imported);
    assert!(errors[0].contains("more than 250000 values"), "{errors:?}");
}

fn wvs(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = program::command(env!("CARGO_BIN_EXE_wvs-under-test"));
    command.current_dir(folder).args(arguments);
    command
}

#[test]
fn help_shows_examples() {
    insta::assert_snapshot!(show(
        &mut wvs(Path::new("/"), &["import", "--help"]),
        Path::new("/nowhere")
    ));
}

#[test]
fn command_writes_to_standard_output_or_a_new_file_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rules =
        "-A -t 203.0.113.10:80 -s rr --pe sip\n-a -t 203.0.113.10:80 -r 10.0.0.11:80 -m -w 1\n";
    fs::write(folder.join("rules"), rules).unwrap();
    let mut from_standard_input = wvs(folder, &["import", "ipvsadm"]);
    from_standard_input.stdin(File::open(folder.join("rules")).unwrap());
    insta::assert_snapshot!(show(&mut from_standard_input, folder));
    let into_file = ["import", "ipvsadm", "rules", "-o", "wvs.yaml"];
    insta::assert_snapshot!(show(&mut wvs(folder, &into_file), folder));
    insta::assert_snapshot!(show(&mut wvs(folder, &["check", "-c", "wvs.yaml"]), folder));
    // What somebody may have edited since is not written over.
    insta::assert_snapshot!(show(&mut wvs(folder, &into_file), folder));
}

#[test]
fn command_refuses_what_is_not_there_or_no_rules() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    insta::assert_snapshot!(show(&mut wvs(folder, &["import", "keepalived", "none"]), folder));
    fs::write(folder.join("vrrp"), "vrrp_instance a {\n}\n").unwrap();
    insta::assert_snapshot!(show(&mut wvs(folder, &["import", "keepalived", "vrrp"]), folder));
    fs::write(folder.join("octets"), [0xff]).unwrap();
    insta::assert_snapshot!(show(&mut wvs(folder, &["import", "keepalived", "octets"]), folder));
}

#[test]
fn documentation_shows_what_the_command_does() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATIONS.md");
    let guide = fs::read_to_string(guide).unwrap();
    let (_, chapter) = guide.split_once("## Coming from ipvsadm or keepalived\n").unwrap();
    let (_, console) = chapter.split_once("```console\n").unwrap();
    let (console, rest) = console.split_once("```").unwrap();
    let (_, rules) = console.split_once("$ cat rules.txt\n").unwrap();
    let (rules, said) = rules.split_once("$ wvs import ipvsadm rules.txt -o wvs.yaml\n").unwrap();
    let (_, yaml) = rest.split_once("```yaml\n").unwrap();
    let (yaml, _) = yaml.split_once("```").unwrap();

    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("rules.txt"), rules).unwrap();
    let output =
        wvs(folder, &["import", "ipvsadm", "rules.txt", "-o", "wvs.yaml"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), said);
    let written = fs::read_to_string(folder.join("wvs.yaml")).unwrap();
    let (_, services) = written.split_once("\n\n").unwrap();
    assert_eq!(services, yaml);
}

/// What rules consist of, good and bad.
const WORDS: &str = r#"
-A|-a|-t|-u|-f|-6|--sctp-service|-s|wrr|sh|-b|sh-port,flag-1|-p|300|-M|255.255.255.0|-o|--pe|sip|-r
-g|-i|-m|-w|-x|-y|-Q|--set|-C|ipvsadm|10.0.0.1:80|10.0.0.1|[2001:db8::]:0|[2001:db8::1]:80|0.0.0.0:0
#|!|{|}|{|}|"|\|$X|@x|include x|global_defs {|lvs_timeouts tcp 1 udp 2|virtual_server 10.0.0.1 80 {
virtual_server 2001:db8:: 0 {|virtual_server group g {|virtual_server_group g {|10.0.0.7 80
10.0.0.1-9 0|2001:db8::1-f 443|10.0.0.0/30 8000|protocol TCP|protocol UDP|lvs_sched sh|sh-port|ops
lb_kind DR|quorum 3|hysteresis 7|sorry_server 10.0.0.9 80|sorry_server ::1 80|snmp_name "a b"
snmp_name null|snmp_name web|alpha|delay_loop 0.1|retry 99|connect_timeout 9|virtualhost ": # 'x'"
persistence_timeout 9|persistence_granularity 64|real_server 10.0.0.1 80 {|real_server 10.0.0.2 {
real_server 2001:db8::2 80 {|weight 0|weight 99999|uthreshold 9|lthreshold 3|HTTP_GET {|SSL_GET {
url {|path "/ "|status_code 200 404-500|regex "- null"|MISC_CHECK {|misc_path "a 'b {"
misc_dynamic|misc_timeout 3|UDP_CHECK {|payload 00e1|require_reply 1e30|DNS_CHECK {|name ~|type true
TCP_CHECK {|SMTP_CHECK {|connect_port 1|connect_ip 10.0.0.3|PING_CHECK {|retry 2|fall
"#;

fn words() -> impl Strategy<Value = String> {
    let words: Vec<_> = WORDS.split(['|', '\n']).filter(|word| !word.is_empty()).collect();
    let word = (prop::sample::select(words), prop::sample::select(vec![" ", "\n"]));
    let text = |words: Vec<(&str, &str)>| {
        let text: String = words.into_iter().flat_map(|(word, end)| [word, end]).collect();
        // What ends lines for some, and what moves a cursor.
        text.replace(r"\u2028", "\u{2028}\u{85}\u{7}")
    };
    prop::collection::vec(word, 0..60).prop_map(text)
}

/// Imports, and sees that what is written is what was counted.
fn holds(source: Source, text: &str) {
    match import(source, "a\nb", text) {
        Ok(imported) => {
            assert_eq!(errors(&imported), [""; 0], "{text}\n{}", imported.yaml);
            let services = imported.reading.config().services.len();
            assert_eq!(services, imported.services, "{}", imported.yaml);
        }
        Err(ImportError::NoService { .. }) => {}
        Err(error) => panic!("{error}\n{text}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_the_words_what_is_written_can_be_read(
        words in words(),
    ) {
        for (_, source) in SOURCES {
            holds(source, &words);
        }
        // Something to hold on to: a service whose settings the words are.
        holds(Source::Ipvsadm, &format!("-A -t 10.9.0.1:80 {words}"));
        holds(Source::Keepalived, &format!("virtual_server 10.9.0.1 80 {{\n{words}"));
        let server = "virtual_server 10.9.0.1 80 {\nreal_server 10.9.0.2 80 {\n";
        holds(Source::Keepalived, &format!("{server}{words}"));
    }

    #[test]
    fn no_text_makes_importing_panic(text in "\\PC*", any in ".*") {
        for (_, source) in SOURCES {
            holds(source, &text);
            holds(source, &any);
        }
    }
}

#[test]
fn example_is_what_the_import_makes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wvs-under-test"));
    command.args(["import", "keepalived", "examples/keepalived.conf"]).current_dir(&folder);
    let made = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let kept = fs::read_to_string(folder.join("examples/keepalived.yaml")).unwrap();
    // The first line is for editors.
    assert_eq!(kept.split_once('\n').unwrap().1, made);
}
