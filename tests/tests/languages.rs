//! Schedulers in every language: a project as `wvs plugin new` makes it builds and decides as the
//! built-in scheduler with the same rule.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;
use wvs::scaffold::{self, Language};
use wvs_abi::{Request, Server};
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

    /// Builds it as an author would, but without a network.
    fn build(&self) -> Module {
        let mut command = Command::new("sh");
        command.arg(self.path("build.sh")).env("GOPROXY", "off").env("CARGO_NET_OFFLINE", "true");
        // Nor with what is there from other builds.
        command.env("CARGO_HOME", self.path("cargo"));
        // Flags for the tests themselves are none of an author's.
        for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "CARGO_BUILD_TARGET"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {words}", output.status);
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

#[test]
fn scheduler_in_c_decides_as_the_built_in_one() {
    let Some(project) = Project::new(Language::C, &["clang", "wasm-ld"]) else { return };
    let module = project.build();
    decides_as_wlc(&module);
    has_room_for_so_many(&module);
    assert!(imports(&module).is_empty());
}

#[test]
fn scheduler_in_zig_decides_as_the_built_in_one() {
    let Some(project) = Project::new(Language::Zig, &["zig"]) else { return };
    let module = project.build();
    decides_as_wlc(&module);
    has_room_for_so_many(&module);
    assert!(imports(&module).is_empty());
}

#[test]
fn scheduler_in_go_decides_as_the_built_in_one() {
    let Some(project) = Project::new(Language::Go, &["go"]) else { return };
    let module = project.build();
    decides_as_wlc(&module);
    has_room_for_so_many(&module);
    let imports = imports(&module);
    assert!(imports.iter().all(|name| name.starts_with("wasi_snapshot_preview1.")), "{imports:?}");
}

#[test]
fn scheduler_in_assembly_script_decides_as_the_built_in_one() {
    let Some(project) = Project::new(Language::AssemblyScript, &["asc"]) else { return };
    let module = project.build();
    decides_as_wlc(&module);
    has_room_for_so_many(&module);
    assert!(imports(&module).is_empty());
}

#[test]
fn scheduler_in_wat_decides_as_the_built_in_one() {
    let Some(project) = Project::new(Language::Wat, &["wat2wasm"]) else { return };
    let module = project.build();
    decides_as_wlc(&module);
    has_room_for_so_many(&module);
    assert!(imports(&module).is_empty());
}

#[test]
fn scheduler_in_rust_decides_as_the_built_in_one() {
    let Some(project) = Project::new(Language::Rust, &["cargo"]) else { return };
    let module = project.build();
    decides_as_wlc(&module);
    assert!(imports(&module).is_empty());
}
