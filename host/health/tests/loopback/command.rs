//! Commands.

use std::fs;
use std::path::Path;

use wvs_health::{Checkers, Command, Kind, ProbeError, Settings};

use super::*;

fn target() -> SocketAddr {
    "[2001:db8::1]:8080".parse().unwrap()
}

fn sh(script: &str) -> Command {
    Command {
        program: "/bin/sh".into(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        weight: false,
    }
}

async fn run(script: &str) -> Finding {
    ask(Kind::Command(sh(script)), target()).await
}

/// Whether a process is there and not merely waiting for somebody to ask how it ended.
fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

/// Returns when none of the processes whose numbers a file has is running any more.
async fn all_ended(file: &Path, processes: usize) {
    let pids = fs::read_to_string(file).unwrap();
    assert_eq!(pids.lines().count(), processes, "{pids}");
    let ended = async {
        while pids.lines().any(is_running) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(AMPLE, ended).await.expect("they run on");
}

#[tokio::test]
async fn exit_code_decides_and_may_carry_a_weight() {
    assert_good(&run("exit 0").await, "exit code 0");
    assert_bad(&run("exit 1").await, "exit code 1");
    assert_bad(&run("exit 7").await, "exit code 7");
    assert_bad(&run("kill -9 $$").await, "ended by signal 9");
    let weighing = |script: &str| Kind::Command(Command { weight: true, ..sh(script) });
    let finding = ask(weighing("exit 52"), target()).await;
    assert_eq!(finding.outcome, Outcome::Good { weight: Some(50) }, "{}", finding.reason);
    assert_bad(&ask(weighing("exit 1"), target()).await, "exit code 1");
}

#[tokio::test]
async fn command_finds_the_server_in_its_environment_and_nothing_else() {
    let script = r#"
        test "$WVS_SERVICE" = web && test "$WVS_SERVER" = "[2001:db8::1]:8080" &&
        test "$WVS_ADDRESS" = 2001:db8::1 && test "$WVS_PORT" = 8080 && test -n "$PATH" &&
        test -z "$CARGO_MANIFEST_DIR" && test -z "$HOME"
    "#;
    assert_good(&run(script).await, "exit code 0");
}

#[tokio::test]
async fn output_leads_nowhere_and_input_is_empty() {
    assert_good(
        &run("head -c 10000000 /dev/zero; cat; exec 1>&2; head -c 100000 /dev/zero").await,
        "0",
    );
}

#[tokio::test]
async fn arguments_meet_no_shell() {
    let command = Command {
        program: "/usr/bin/test".into(),
        arguments: ["$HOME; exit 0", "=", "$HOME; exit 0"].map(str::to_owned).into(),
        weight: false,
    };
    assert_good(&ask(Kind::Command(command), target()).await, "exit code 0");
}

#[tokio::test]
async fn command_that_hangs_gets_sigterm_first() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("told");
    let script = format!("trap 'echo told > {}; exit 0' TERM; sleep 1000 & wait", file.display());
    let finding = ask_within(Kind::Command(sh(&script)), target(), SHORT).await;
    assert_bad(&finding, "did not end within 300ms");
    assert_eq!(fs::read_to_string(file).unwrap(), "told\n");
}

#[tokio::test]
async fn command_that_forks_and_ignores_sigterm_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let script = format!(
        "trap '' TERM; exec >> {}; echo $$; sh -c 'echo $$; sh -c \"echo \\$\\$; sleep 1000\" & sleep 1000' & \
         sleep 1000",
        file.display()
    );
    let finding = ask_within(Kind::Command(sh(&script)), target(), SHORT).await;
    assert_bad(&finding, "did not end within 300ms");
    all_ended(&file, 3).await;
}

#[tokio::test]
async fn what_a_command_leaves_running_is_ended_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let script = format!("trap '' TERM; sleep 1000 & echo $! > {}", file.display());
    assert_good(&run(&script).await, "exit code 0");
    all_ended(&file, 1).await;
}

#[tokio::test]
async fn command_in_flight_is_killed_when_nobody_wants_its_answer_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let script = format!("echo $$ > {}; trap '' TERM; sleep 1000", file.display());
    let (checkers, _news) = Checkers::start(Settings { concurrent_max: 1, seed: 1 });
    let check = Check {
        kind: Kind::Command(sh(&script)),
        target: target(),
        interval: Duration::from_millis(100),
        down_interval: AMPLE,
        timeout: AMPLE,
        rise: 1,
        fall: 1,
        start: Standing::Up,
    };
    checkers.set([(ServerKey { service: "web".to_owned(), server: target() }, check)]);
    while !fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n')) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(checkers);
    all_ended(&file, 1).await;
}

#[tokio::test]
async fn program_that_is_missing_is_bad_and_told_before_any_check() {
    let command = |program: &str| {
        Kind::Command(Command { program: program.into(), arguments: Vec::new(), weight: false })
    };
    let told = |program| match command(program).probe() {
        Ok(()) => String::new(),
        Err(error @ ProbeError::Program { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
    };
    assert_bad(&ask(command("/nowhere/check"), target()).await, "cannot be run: No such file");
    assert!(told("/nowhere/check").contains("No such file"));
    assert!(told("/etc/passwd").contains("not executable"));
    assert!(told("/etc").contains("not a file"));
    assert_eq!(told("/bin/sh"), "");
    // Not looked up in `PATH`.
    assert_bad(&ask(command("true"), target()).await, "cannot be run: No such file");
    assert!(told("true").contains("No such file"));
}
