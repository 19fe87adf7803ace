//! The demo on a terminal, or as plain lines.

use std::io::Write;
use std::path::Path;

use wvs_plugin::Limits;

use super::act::{Act, Goal};
use super::report::{ActReport, Report, ServerReport};
use super::{WEIGHTS, config};
use crate::lab::{self, CLIENTS, Host};
use crate::output::grouped;

/// Columns of a full bar.
const BAR: usize = 30;

const BOLD: &str = "\x1b[1m";
const FAINT: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";
const ERASE_LINE: &str = "\r\x1b[2K";

/// Writes what happens. A reader that is gone is no reason to stop: what counts is the report.
pub(super) struct Show<'a> {
    out: &'a mut (dyn Write + Send),
    is_terminal: bool,
    has_colours: bool,
    is_silent: bool,
}

impl<'a> Show<'a> {
    pub(super) fn new(out: &'a mut (dyn Write + Send), is_terminal: bool, is_silent: bool) -> Self {
        let has_colours = is_terminal && std::env::var_os("NO_COLOR").is_none();
        Self { out, is_terminal, has_colours, is_silent }
    }

    pub(super) fn overture(&mut self) {
        let vip = format!("{}:{}", lab::VIP, config::PORT);
        self.line("");
        let title = self.painted(BOLD, "WVS demo");
        let servers = WEIGHTS.len();
        self.line(&format!(
            "  {title}   {CLIENTS} clients ──► {vip} ──► director ──► {servers} HTTP servers"
        ));
        self.line("");
        for text in [
            "Real ones, in network namespaces of this process; the director is the one of `wvs run`.",
            "Each request is a TCP connection of its own. They never pause: schedulers are replaced",
            "under load.",
        ] {
            let text = self.painted(FAINT, text);
            self.line(&format!("  {text}"));
        }
    }

    pub(super) fn begin(&mut self, act: &Act) {
        self.line("");
        let name = self.painted(BOLD, &act.name);
        self.line(&format!("  {name}: {}. Expected: {}.", act.what, act.goal.sentence()));
    }

    /// Only on a terminal, where it can be taken away again.
    pub(super) fn progress(&mut self, part: f64, requests: u64) {
        if self.is_terminal && !self.is_silent {
            let bar = bar(part);
            let text =
                self.painted(FAINT, &format!("{bar:<BAR$}  {} requests so far", grouped(requests)));
            let _ = write!(self.out, "{ERASE_LINE}    {text}");
            let _ = self.out.flush();
        }
    }

    /// Takes the progress away.
    pub(super) fn clear_progress(&mut self) {
        if self.is_terminal && !self.is_silent {
            let _ = write!(self.out, "{ERASE_LINE}");
            let _ = self.out.flush();
        }
    }

    pub(super) fn end(&mut self, act: &ActReport) {
        self.clear_progress();
        for server in &act.servers {
            self.line(&self.row(act, server));
        }
        self.verdict(act.is_good(), &found(act));
        if let Some(fault) = act.last_fault.as_ref().filter(|_| act.goal != Goal::Survived) {
            let fault = fault.replace(char::is_control, "\u{fffd}");
            self.line(&format!("    the last fault: {fault}"));
        }
    }

    fn row(&self, act: &ActReport, server: &ServerReport) -> String {
        let ServerReport { name, weight, requests, clients, held } = server;
        let share = ratio(*requests, act.requests());
        let requests = grouped(*requests);
        let (count, text): (fn(&ServerReport) -> u64, _) = match act.goal {
            Goal::HeldByWeight => (
                |server| server.held,
                format!("{held:>5} held     {:>5.1} % of requests", share * 100.0),
            ),
            Goal::OneServerPerClient => {
                (|server| server.requests, format!("{clients:>5} clients  {requests:>7} requests"))
            }
            _ => {
                let percent = share * 100.0;
                (
                    |server| server.requests,
                    format!("{percent:>5.1} %        {requests:>7} requests"),
                )
            }
        };
        // The longest bar is a full one.
        let largest = act.servers.iter().map(count).max().unwrap_or(0);
        let bar = self.painted(CYAN, &format!("{:<BAR$}", bar(ratio(count(server), largest))));
        format!("    {name}  weight {weight}  {bar}  {text}")
    }

    pub(super) fn finale(&mut self, report: &Report) {
        self.line("");
        let requests = grouped(report.requests);
        let replaced = match report.replacements {
            0 => String::new(),
            count => format!(", while the scheduler was replaced {}", times(count as u64)),
        };
        self.verdict(
            report.failed == 0,
            &format!(
                "{requests} requests in {:.1} s, {} failed{replaced}",
                report.seconds,
                grouped(report.failed),
            ),
        );
        if let Some(failure) = &report.first_failure {
            self.line(&format!("      the first failure: {failure}"));
        }
        let (plugins, fallback) =
            (report.connections_placed_by_plugins, report.connections_placed_by_fallback);
        self.verdict(
            report.is_complete(),
            &format!(
                "{} connections placed: {} by wasm, {} by the director's own fallback",
                grouped(plugins + fallback),
                grouped(plugins),
                grouped(fallback)
            ),
        );
        self.line("");
    }

    /// What else there is to try, for whoever saw the demo in passing.
    pub(super) fn hints(&mut self) {
        for hint in [
            "wvs demo --keep                  leaves it up, to look around",
            "wvs demo --scheduler FILE.wasm   shows a scheduler of your own",
        ] {
            let hint = self.painted(FAINT, hint);
            self.line(&format!("  {hint}"));
        }
        self.line("");
    }

    pub(super) fn instructions(&mut self, client: &Host, socket: &Path) {
        let pid = std::process::id();
        // Another user namespace has to be entered first.
        let user = if nix::unistd::getuid().is_root() && has_all_users() {
            String::new()
        } else {
            format!("--target {pid} --user --preserve-credentials ")
        };
        let program = std::env::current_exe().ok();
        let program = program.map_or_else(|| "wvs".to_owned(), |path| path.display().to_string());
        let lines = [
            "The director goes on. In another terminal, as the same user:".to_owned(),
            String::new(),
            format!("    nsenter {user}--net={} curl -s http://{}/", client.path(), lab::VIP),
            format!("    {program} list --socket /proc/{pid}/root{}", socket.display()),
            String::new(),
            "Ctrl-C ends it.".to_owned(),
        ];
        for line in lines {
            self.line(&format!("  {line}"));
        }
    }

    fn verdict(&mut self, is_good: bool, text: &str) {
        let mark = if is_good { self.painted(GREEN, "✓") } else { self.painted(RED, "✗") };
        self.line(&format!("  {mark} {text}"));
    }

    fn line(&mut self, text: &str) {
        if !self.is_silent {
            let _ = writeln!(self.out, "{}", text.trim_end());
            let _ = self.out.flush();
        }
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.has_colours { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
    }
}

/// What came of a goal.
fn found(act: &ActReport) -> String {
    let requests = format!("{} requests, {} failed", grouped(act.requests()), grouped(act.failed));
    let faithful =
        format!("{} of {CLIENTS} clients always had the same server", act.faithful_clients);
    let mut placed = format!(
        "{} placed by the plugin, {} by the director",
        grouped(act.placed_by_plugin),
        grouped(act.placed_by_fallback)
    );
    if act.under_way() > 0 {
        let under_way = grouped(act.under_way());
        placed += &format!(" ({under_way} of them under way at either end)");
    }
    match act.goal {
        Goal::EqualShares => {
            format!(
                "{requests}; servers are {} apart at most",
                counted(act.spread(), "request", "requests")
            )
        }
        Goal::HeldByWeight => {
            let held: Vec<_> = act.servers.iter().map(|server| server.held.to_string()).collect();
            format!("{requests}; {} of {} held", held.join(" : "), act.held())
        }
        Goal::OneServerPerClient => format!("{requests}; {faithful}"),
        Goal::GaveWay => {
            let fault = act.gave_way.as_deref().unwrap_or("it did not fail");
            format!("{requests}; {placed}\n    {fault}: back to the one before")
        }
        Goal::Survived => format!(
            "{requests}; {placed}\n    {} cut off after {} units of fuel, quarantined {}",
            counted(act.cut_off, "pick", "picks"),
            grouped(Limits::default().fuel),
            times(act.quarantines)
        ),
        Goal::PlacedByPlugin => {
            let faults = counted(act.faults, "fault", "faults");
            format!("{requests}; {placed}\n    {faults}; {faithful}")
        }
    }
}

fn counted(count: u64, one: &str, several: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { several })
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{} times", grouped(count)),
    }
}

/// `part` of a full bar, in eighths of a column.
fn bar(part: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and a few hundred"
    )]
    let eighths = (part.clamp(0.0, 1.0) * (BAR * 8) as f64).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

#[expect(clippy::cast_precision_loss, reason = "a share shown with three digits")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Whether this process is in the first user namespace, where root is root.
fn has_all_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2) == Some("4294967295")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_part() {
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(1.0).chars().count(), BAR);
        assert_eq!(bar(0.5), "█".repeat(BAR / 2));
        assert_eq!(bar(1.0 / (BAR as f64 * 8.0)), "▏");
    }
}
