//! The contract in other languages, written from [`wvs_abi::description`]: nothing of it is written
//! down a second time by hand.

mod assemblyscript;
mod c;
mod go;
mod markdown;
mod zig;

use wvs_abi::description::{Constant, EXPORTS, Function, IMPORTS};
use wvs_abi::{
    ABI_MAJOR, ABI_MINOR, CONFIG_OCTETS_MAX, LOG_OCTETS_MAX, STATE_OCTETS_MAX, TICK_MS_MIN, import,
};

pub use markdown::with_tables;

/// What rewrites the files.
pub const COMMAND: &str = "WVS_UPDATE_BINDINGS=1 cargo test -p wvs-tests --test bindings";

/// Columns that a line of the files has at most, where its text can be broken.
const WIDTH: usize = 100;

/// The files for other languages: paths in the repository, and what is in them.
#[must_use]
pub fn files() -> [(&'static str, String); 4] {
    [
        ("sdk/c/wvs.h", c::header()),
        ("sdk/zig/wvs.zig", zig::file()),
        ("sdk/go/wvs/wvs.go", go::package()),
        ("sdk/assemblyscript/wvs.ts", assemblyscript::file()),
    ]
}

/// What each file says of itself at its top.
fn preamble() -> [String; 2] {
    [
        format!(
            "The contract between a WVS director and a scheduler plugin, version \
             {ABI_MAJOR}.{ABI_MINOR}. All integers are little endian; addresses stand in network \
             order. docs/PLUGINS.md of WVS explains it."
        ),
        "Generated from the contract of WVS; not to be edited.".to_owned(),
    ]
}

/// The numbers that belong to no group.
const LIMITS: [Constant; 4] = [
    Constant {
        name: "CONFIG_OCTETS_MAX",
        value: CONFIG_OCTETS_MAX as i64,
        about: "Octets that a configuration has at most.",
    },
    Constant {
        name: "STATE_OCTETS_MAX",
        value: STATE_OCTETS_MAX as i64,
        about: "Octets of the state region at most.",
    },
    Constant {
        name: "LOG_OCTETS_MAX",
        value: LOG_OCTETS_MAX as i64,
        about: "Octets of one line of the log; the rest is cut off.",
    },
    Constant {
        name: "TICK_MS_MIN",
        value: TICK_MS_MIN as i64,
        about: "Milliseconds between two ticks at least.",
    },
];

/// The exports that an author writes or the SDK has; the others are a language runtime's.
fn exports() -> impl Iterator<Item = &'static Function> {
    EXPORTS.iter().filter(|function| function.name.starts_with("wvs_"))
}

/// The imports that an author calls; the others are a compiler's.
fn imports() -> impl Iterator<Item = &'static Function> {
    IMPORTS.iter().filter(|function| function.module == import::WVS)
}

/// What an export is for, and whether a plugin must have it.
fn export_text(function: &Function) -> String {
    let needed = if function.is_required { "Required." } else { "Optional." };
    format!("{needed} {}", text(function.about))
}

/// Whether a result can be negative, so that its type has a sign where the language knows one.
fn is_signed(result: &str) -> bool {
    match result {
        "index" | "refusal" | "len" => true,
        "version" | "bits" | "address" | "ms" => false,
        other => panic!("a result called {other}: say here whether it can be negative"),
    }
}

/// A description as running text: without the breaks of the source's lines and its links.
fn text(about: &str) -> String {
    let text = about.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace("[`", "`").replace("`]", "`")
}

/// A comment: `text` in lines that begin with `prefix` and have at most [`WIDTH`] columns.
fn comment(prefix: &str, text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && prefix.len() + line.len() + 1 + word.len() > WIDTH {
            lines += &format!("{prefix}{line}\n");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines + &format!("{prefix}{line}\n")
}

/// `client_port` as `ClientPort`, and likewise from upper case.
fn pascal(name: &str) -> String {
    name.split('_')
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_ascii_uppercase() + &rest.to_ascii_lowercase()
        })
        .collect()
}

/// `ServerInfo` as `server_info`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_broken_between_words() {
        let words = ["word"; 30].join(" ");
        let lines = comment("/// ", &words);
        assert!(lines.lines().all(|line| line.starts_with("/// word") && line.len() <= WIDTH));
        assert_eq!(lines.matches("word").count(), 30);
        assert_eq!(lines.lines().count(), 2);
        assert_eq!(comment("// ", "one two"), "// one two\n");
    }

    #[test]
    fn descriptions_become_running_text() {
        assert_eq!(text(" Bits of\n [`Server`],  all."), "Bits of `Server`, all.");
    }

    #[test]
    fn names_follow_each_languages_ways() {
        assert_eq!(pascal("server_flags") + &pascal("NO_SERVER"), "ServerFlagsNoServer");
        assert_eq!(snake("ServerInfo"), "server_info");
    }
}
