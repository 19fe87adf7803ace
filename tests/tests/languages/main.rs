//! Schedulers in every language: a project as `wvs plugin new` makes it builds, passes its own test
//! and decides as the built-in scheduler with the same rule, and all of the contract can be used.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::{env, fs};

use tempfile::TempDir;
use wvs::scaffold::{self, Language};
use wvs_abi::{Request, Server, ServerInfo, Signals, event};
use wvs_core::scheduler::Pick;
use wvs_plugin::{Fault, Host, Instance, Limits, Module, ServerTable, Source};
use wvs_tests::requests::Requests;

const REQUESTS: usize = 10_000;

/// Servers that every project has room for.
const SERVERS_MAX: usize = 1024;

const INSTALL: &str = "sh sdk/install-toolchains.sh";

static HOST: LazyLock<Host> = LazyLock::new(|| Host::new().unwrap());

/// A project in a folder of its own.
struct Project {
    folder: TempDir,
}

impl Project {
    /// A new one; `None` on a machine without one of `tools`, which is what builds it.
    fn new(language: Language, tools: &[&str]) -> Option<Self> {
        let missing: Vec<_> = tools.iter().filter(|tool| !is_in_path(tool)).collect();
        if !missing.is_empty() {
            let needed = format!("{language:?} needs {missing:?}, which `{INSTALL}` installs");
            assert!(env::var_os("WVS_FORBID_SKIP").is_none(), "{needed}");
            eprintln!("skipped: {needed}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        scaffold::create("example", language, folder.path()).unwrap();
        Some(Self { folder })
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Builds it.
    fn build(&self) -> Module {
        self.run("build.sh")
    }

    /// Runs its test, which builds it too.
    fn test(&self) -> Module {
        self.run("test.sh")
    }

    /// Runs a script as an author would, but without a network, for the module that it builds.
    fn run(&self, script: &str) -> Module {
        let mut command = Command::new("sh");
        command.arg(self.path(script)).env("WVS", env!("CARGO_BIN_EXE_wvs-under-test"));
        command.env("GOPROXY", "off").env("CARGO_NET_OFFLINE", "true");
        // Nor with what is there from other builds.
        command.env("CARGO_HOME", self.path("cargo"));
        // Flags for the tests themselves are none of an author's.
        for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "CARGO_BUILD_TARGET"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {}: {words}", output.status);
        let file = self.path("example.wasm");
        HOST.load(Source::File(&file), Limits::default()).unwrap()
    }
}

fn is_in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn tell(instance: &mut Instance, servers: &[Server]) -> Result<(), Fault> {
    instance.set_servers(&ServerTable::from(servers.to_vec()))
}

fn ask(instance: &mut Instance, request: &Request, servers: &[Server]) -> Pick {
    let counts = servers.iter().map(|server| (server.active, server.inactive));
    instance.schedule(request, counts).unwrap()
}

/// Puts one stream to the project's scheduler and to the built-in one.
fn decides_as_wlc(module: &Module) {
    let built_in = HOST.load(Source::BuiltIn("wlc"), Limits::default()).unwrap();
    let [mut ours, mut theirs] =
        [&built_in, module].map(|module| Instance::new(module, None).unwrap());
    let mut requests = Requests::new(0x0DDB_1A5E_5BAD_5EED);
    let mut is_told = false;
    for number in 0..REQUESTS {
        if requests.servers_change() || !is_told {
            tell(&mut ours, &requests.servers).unwrap();
            tell(&mut theirs, &requests.servers).unwrap();
            is_told = true;
        }
        let request = requests.next_request();
        let expected = ask(&mut ours, &request, &requests.servers);
        let picked = ask(&mut theirs, &request, &requests.servers);
        assert_eq!(picked, expected, "request {number}");
    }
}

/// A full table is taken, to its last server; one that is too large is refused in words.
fn has_room_for_so_many(module: &Module) {
    let mut instance = Instance::new(module, None).unwrap();
    let mut servers = vec![Server::default(); SERVERS_MAX];
    servers[SERVERS_MAX - 1].weight = 1;
    tell(&mut instance, &servers).unwrap();
    let last = Pick::Server(SERVERS_MAX - 1);
    assert_eq!(ask(&mut instance, &Request::default(), &servers), last);
    let too_many = vec![Server::default(); 8 * SERVERS_MAX];
    assert!(matches!(tell(&mut instance, &too_many), Err(Fault::Region(_))));
}

fn imports(module: &Module) -> Vec<String> {
    module.imports().map(|(module, name)| format!("{module}.{name}")).collect()
}

/// Builds a scheduler that exports everything in the place of the project's own, and tells it
/// something by every way that there is.
fn is_told_everything(project: &Project, source: &str) {
    let (_, extension) = source.split_once('.').unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/languages").join(source);
    fs::copy(source, project.path("scheduler").with_extension(extension)).unwrap();
    let module = project.build();
    let mut instance = Instance::new(&module, Some("12345")).unwrap();
    let table = ServerTable {
        servers: vec![Server { weight: 1, ..Server::default() }; 3],
        info: [81, 82, 83].map(|port| ServerInfo { port, ..ServerInfo::default() }).into(),
    };
    instance.set_servers(&table).unwrap();
    instance.set_signals([6, 7, 8].map(|out_octets| Signals { out_octets, ..Signals::default() }));
    let mut request = Request { now_ms: 20, ..Request::default() };
    request.virtual_address[3] = 10;
    assert_eq!(ask(&mut instance, &request, &table.servers), Pick::Server(2));
    instance.event(event::UNBOUND, 2, 9).unwrap();
    assert_eq!(instance.tick(&request).unwrap(), Some(1000));
    let log: Vec<_> = instance.log().collect();
    assert!(matches!(log[..], [line] if line.contains("ticked")), "{log:?}");
    let saved = instance.save_state().unwrap().unwrap();
    assert_eq!(saved, [b'5', 83, 10, 8, 229, 20, 1]);

    let mut successor = Instance::new(&module, Some("0")).unwrap();
    successor.set_servers(&table).unwrap();
    assert!(!successor.load_state(&saved[1..]).unwrap());
    assert!(successor.load_state(&saved).unwrap());
    assert_eq!(successor.save_state().unwrap().unwrap(), [b'5', 83, 10, 8, 229, 20, 2]);
}

#[test]
fn scheduler_in_c_decides_as_the_built_in_one_and_is_told_everything() {
    let Some(project) = Project::new(Language::C, &["clang", "wasm-ld"]) else { return };
    let module = project.test();
    decides_as_wlc(&module);
    has_room_for_so_many(&module);
    assert!(imports(&module).is_empty());
    is_told_everything(&project, "whole.c");
}

#[test]
fn scheduler_in_zig_decides_as_the_built_in_one_and_is_told_everything() {
    let Some(project) = Project::new(Language::Zig, &["zig"]) else { return };
    let module = project.test();
    decides_as_wlc(&module);
    has_room_for_so_many(&module);
    assert!(imports(&module).is_empty());
    is_told_everything(&project, "whole.zig");
}

#[test]
fn scheduler_in_go_decides_as_the_built_in_one_and_is_told_everything() {
    let Some(project) = Project::new(Language::Go, &["go"]) else { return };
    let module = project.test();
    decides_as_wlc(&module);
    has_room_for_so_many(&module);
    let imports = imports(&module);
    assert!(imports.iter().all(|name| name.starts_with("wasi_snapshot_preview1.")), "{imports:?}");
    is_told_everything(&project, "whole.go");
}

#[test]
fn scheduler_in_assembly_script_decides_as_the_built_in_one_and_is_told_everything() {
    let Some(project) = Project::new(Language::AssemblyScript, &["asc"]) else { return };
    let module = project.test();
    decides_as_wlc(&module);
    has_room_for_so_many(&module);
    assert!(imports(&module).is_empty());
    is_told_everything(&project, "whole.ts");
}

#[test]
fn scheduler_in_wat_decides_as_the_built_in_one() {
    let Some(project) = Project::new(Language::Wat, &["wat2wasm"]) else { return };
    let module = project.test();
    decides_as_wlc(&module);
    has_room_for_so_many(&module);
    assert!(imports(&module).is_empty());
}

#[test]
fn scheduler_in_rust_decides_as_the_built_in_one() {
    let Some(project) = Project::new(Language::Rust, &["cargo"]) else { return };
    let module = project.test();
    decides_as_wlc(&module);
    assert!(imports(&module).is_empty());
}

#[test]
fn command_makes_a_project_in_every_language_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let new = |name: &str, language: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wvs-under-test"));
        let command = command.args(["plugin", "new", name, "--lang", language]);
        let output = command.current_dir(&folder).output().unwrap();
        let words = [&output.stdout, &output.stderr].map(|octets| String::from_utf8_lossy(octets));
        (output.status.code(), words.concat())
    };
    for language in ["rust", "c", "zig", "go", "assemblyscript", "wat"] {
        let name = format!("in-{language}");
        let (code, words) = new(&name, language);
        assert!(code == Some(0) && words.contains(&format!("{name}.wasm")), "{words}");
        for file in ["README.md", "build.sh", "test.sh"] {
            assert!(folder.path().join(&name).join(file).is_file(), "{language}: {file}");
        }
        let (code, words) = new(&name, language);
        assert!(code == Some(2) && words.contains("exists and is not an empty folder"), "{words}");
    }
    for (name, language, remedy) in [
        ("../in-c", "c", "lower-case letters"),
        ("rr", "c", "one of the director's own names"),
        ("in-cobol", "cobol", "possible values"),
    ] {
        let (code, words) = new(name, language);
        assert!(code == Some(2) && words.contains(remedy), "{words}");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 6);
}

/// The guide's scheduler in C: an example beside the SDK's own, with a configuration and a log.
#[test]
fn fill_of_the_guide_fills_one_server_after_the_other() {
    const EXAMPLE: &str = "../examples/schedulers/fill/scheduler.c";

    let Some(project) = Project::new(Language::C, &["clang", "wasm-ld"]) else { return };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLE);
    fs::copy(example, project.path("scheduler.c")).unwrap();
    let module = project.build();
    assert_eq!(imports(&module), ["wvs.log"]);

    let server = |weight, active| Server { weight, active, ..Server::default() };
    let mut instance = Instance::new(&module, Some("2")).unwrap();
    for (servers, expected) in [
        ([server(1, 0), server(3, 0)], Pick::Server(0)),
        ([server(1, 1), server(3, 0)], Pick::Server(0)),
        ([server(1, 2), server(3, 5)], Pick::Server(1)),
        ([server(0, 0), server(3, 5)], Pick::Server(1)),
    ] {
        tell(&mut instance, &servers).unwrap();
        assert_eq!(ask(&mut instance, &Request::default(), &servers), expected);
    }
    assert_eq!(instance.log().count(), 0);
    for active in [6, 7] {
        let full = [server(1, 2), server(3, active)];
        tell(&mut instance, &full).unwrap();
        assert_eq!(ask(&mut instance, &Request::default(), &full), Pick::Defer);
        let log: Vec<_> = instance.log().collect();
        assert!(matches!(log[..], [line] if line.contains("every server is full")), "{log:?}");
    }

    // The guide's configuration beside the module is one that `wvs check` has nothing to say about.
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PLUGINS.md");
    let guide = fs::read_to_string(guide).unwrap();
    let (_, rest) = guide.split_once("<!-- yaml: fill -->\n```yaml\n").unwrap();
    let yaml = project.path("wvs.yaml");
    fs::write(&yaml, rest.split_once("```").unwrap().0).unwrap();
    fs::rename(project.path("example.wasm"), project.path("fill.wasm")).unwrap();
    let reading = wvs::deployment::check(&yaml).unwrap();
    assert!(reading.problems().is_empty(), "{:?}", reading.problems());

    assert!(Instance::new(&module, None).is_ok());
    for config in ["0", "-1", "1.5", "1000000", "{}", "\"2\""] {
        let refused = Instance::new(&module, Some(config)).unwrap_err().to_string();
        assert!(refused.contains("config must be a number from 1 to 999999"), "{refused}");
    }
}
