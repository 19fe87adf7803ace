//! Decisions of a run on file, to hold later runs against.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wvs_core::scheduler::Pick;
use wvs_plugin::simulation::{Answer, Step};

use super::super::source::{Trouble, read_text};

/// Octets of such a file: more than as many decisions as there can be need.
const OCTETS_MAX: usize = 128 << 20;

/// What such a file begins with, so that no other one is overwritten.
const MARK: &str = "# decisions of a scheduler, written by wvs plugin simulate --golden\n";
const HEADER: &str = "at_ms,client,port,answer\n";

/// Characters shown of a line that is none of ours.
const LINE_MAX: usize = 100;

/// A golden file being written or compared with.
#[derive(Debug)]
pub(super) enum Golden {
    Writing { path: PathBuf, text: String },
    Comparing { lines: Vec<String>, steps: usize, first: Option<Deviation> },
}

/// Where a run first differs from the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Deviation {
    /// The file's line, from 1.
    line: usize,
    /// What the file has; `None` when it ends before that.
    recorded: Option<String>,
    /// What the run has; `None` when it ends before that.
    now: Option<String>,
}

impl Golden {
    /// Begins to write the file, or reads it to be compared with.
    pub(super) fn open(path: &Path, is_update: bool) -> Result<Self, Trouble> {
        if is_update {
            check_is_ours(path)?;
            return Ok(Self::Writing { path: path.to_owned(), text: [MARK, HEADER].concat() });
        }
        if !path.exists() {
            let path = path.display();
            return Err(Trouble::refused(format_args!("{path} is not there; --update writes it")));
        }
        let text = read_text(path, OCTETS_MAX)?;
        let lines = text.strip_prefix(MARK).and_then(|rest| rest.strip_prefix(HEADER));
        let lines = lines.ok_or_else(|| foreign(path))?.lines().map(str::to_owned).collect();
        Ok(Self::Comparing { lines, steps: 0, first: None })
    }

    /// Takes note of a decision.
    pub(super) fn follow(&mut self, step: &Step<'_>) {
        let found = line(step);
        match self {
            Self::Writing { text, .. } => {
                text.push_str(&found);
                text.push('\n');
            }
            Self::Comparing { lines, steps, first } => {
                let recorded = lines.get(*steps);
                if recorded != Some(&found) && first.is_none() {
                    *first = Some(Deviation {
                        line: line_number(*steps),
                        recorded: recorded.cloned(),
                        now: Some(found),
                    });
                }
                *steps += 1;
            }
        }
    }

    /// Writes the file, or says where the run first differed from it.
    pub(super) fn finish(self) -> Result<Option<Deviation>, Trouble> {
        match self {
            Self::Writing { path, text } => match fs::write(&path, text) {
                Ok(()) => Ok(None),
                Err(cause) => Err(Trouble::failed(format_args!(
                    "{} cannot be written: {cause}",
                    path.display()
                ))),
            },
            Self::Comparing { lines, steps, first } => Ok(first.or_else(|| {
                let recorded = Some(lines.get(steps)?.clone());
                Some(Deviation { line: line_number(steps), recorded, now: None })
            })),
        }
    }
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |line: &Option<String>| match line {
            Some(line) => {
                let char = |char: char| if char.is_control() { '\u{fffd}' } else { char };
                line.chars().take(LINE_MAX).map(char).collect()
            }
            None => "nothing more".to_owned(),
        };
        let Self { line, recorded, now } = self;
        let (recorded, now) = (shown(recorded), shown(now));
        write!(f, "line {line} has {recorded}, and now it is {now}")?;
        if self.is_other_request() {
            f.write_str("; it was recorded with other requests or servers")?;
        }
        Ok(())
    }
}

impl Deviation {
    /// Whether not the answer differs but what was asked.
    fn is_other_request(&self) -> bool {
        let request = |line: &Option<String>| {
            line.as_ref()
                .and_then(|line| line.rsplit_once(','))
                .map(|(request, _)| request.to_owned())
        };
        request(&self.recorded) != request(&self.now)
    }
}

/// The line of the file that a step is on, behind two others.
fn line_number(step: usize) -> usize {
    step.saturating_add(3)
}

fn line(step: &Step<'_>) -> String {
    let answer = match step.answer {
        Answer::Given(Pick::Server(index)) => step
            .question
            .servers
            .address(*index)
            .as_ref()
            .map_or_else(|| index.to_string(), SocketAddr::to_string),
        Answer::Given(Pick::NoServer) => "none".to_owned(),
        Answer::Given(Pick::Defer) => "director".to_owned(),
        Answer::Failed(_) => "failed".to_owned(),
        Answer::Quarantined => "quarantined".to_owned(),
    };
    let request = step.question.request;
    format!("{},{},{},{answer}", request.now_ms, request.client(), request.client_port)
}

/// Whether a file may be overwritten: it is not there, or was written here.
fn check_is_ours(path: &Path) -> Result<(), Trouble> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ if read_text(path, OCTETS_MAX)?.starts_with(MARK) => Ok(()),
        _ => Err(foreign(path)),
    }
}

fn foreign(path: &Path) -> Trouble {
    Trouble::refused(format_args!(
        "{} was not written by --golden --update; give another file",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(recorded: Option<&str>, now: Option<&str>) -> String {
        let [recorded, now] = [recorded, now].map(|line| line.map(str::to_owned));
        Deviation { line: 7, recorded, now }.to_string()
    }

    #[test]
    fn deviation_says_whether_the_question_was_another_one() {
        assert_eq!(
            text(Some("1,192.0.2.1,2,10.0.0.1:80"), Some("1,192.0.2.1,2,none")),
            "line 7 has 1,192.0.2.1,2,10.0.0.1:80, and now it is 1,192.0.2.1,2,none"
        );
        let other = "; it was recorded with other requests or servers";
        assert!(text(Some("1,192.0.2.1,2,none"), Some("1,192.0.2.1,3,none")).ends_with(other));
        assert!(text(Some("1,192.0.2.1,2,none"), None).ends_with(other));
        assert!(text(Some("\u{1b}[2J"), Some("1,192.0.2.1,3,none")).contains("\u{fffd}[2J"));
    }
}
