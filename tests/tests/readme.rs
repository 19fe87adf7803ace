//! The README and the guide for operators held against the program. The README's Rust is compiled as a test of
//! `wvs-sdk`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const WVS: &str = env!("CARGO_BIN_EXE_wvs-under-test");

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn readme() -> String {
    std::fs::read_to_string(workspace().join("README.md")).unwrap()
}

fn operations() -> String {
    std::fs::read_to_string(workspace().join("docs/OPERATIONS.md")).unwrap()
}

/// The contents of the code blocks in a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn configurations_are_good() {
    let (readme, operations) = (readme(), operations());
    let configurations = [blocks(&readme, "yaml"), blocks(&operations, "yaml")].concat();
    assert!(configurations.len() >= 2);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("readme.yaml");
    // What a configuration names has to be there.
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    for configuration in configurations {
        std::fs::write(&path, configuration).unwrap();
        let output = Command::new(WVS).arg("check").arg("-c").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn commands_exist_with_their_options() {
    for (text, at_least) in [(readme(), 1), (operations(), 10)] {
        let mut tried = 0;
        for line in blocks(&text, "console").into_iter().flat_map(str::lines) {
            let Some(line) = line.strip_prefix("$ ") else { continue };
            let command = line.strip_prefix("sudo ").unwrap_or(line);
            let Some(arguments) = command.strip_prefix("wvs ") else { continue };
            let words = arguments.split_whitespace();
            let words = words.take_while(|word| !matches!(*word, "#" | "|" | "&&" | ">" | "<"));
            let output = Command::new(WVS).args(words).arg("--help").output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            tried += 1;
        }
        assert!(tried >= at_least, "{tried}");
    }
}

#[test]
fn linked_files_exist() {
    let readme = readme();
    let links: Vec<&str> =
        readme.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(!links.is_empty());
    for link in links.into_iter().filter(|link| !link.starts_with("http")) {
        assert!(workspace().join(link).exists(), "{link}");
    }
}
