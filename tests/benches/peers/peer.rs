//! The contestants: what takes the connections of the VIP to the real server.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use wvs::control::snapshot::Snapshot;
use wvs::lab::{self, Lab};
use wvs::sysctl;

use crate::process::{Process, run};
use crate::reflector::DEVICE;
use crate::servers::{BULK_PORT, DATAGRAM_PORT, REQUEST_PORT, Servers, rip};
use crate::{Fallible, load};

const WVS: &str = env!("CARGO_BIN_EXE_wvs-under-test");

/// How long a contestant may take to begin its work.
const START_PATIENCE: Duration = Duration::from_secs(10);

const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// How long a small program such as `ip` may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);

/// Where nginx may have its parts.
const NGINX_STREAM_MODULES: [&str; 3] = [
    "/usr/lib/nginx/modules/ngx_stream_module.so",
    "/usr/lib64/nginx/modules/ngx_stream_module.so",
    "/usr/share/nginx/modules/ngx_stream_module.so",
];

/// A contestant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Peer {
    /// The kernel's own destination NAT, set by nft.
    Nftables,
    /// `HAProxy` in TCP mode.
    Haproxy,
    /// nginx with its stream module.
    Nginx,
    /// A program that only rewrites addresses, on a device like the director's.
    Reflector,
    /// The director, with the plugin `rr`.
    Wvs,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nftables => "nftables",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Reflector => "reflector",
            Self::Wvs => "WVS",
        })
    }
}

impl Peer {
    pub(crate) const ALL: [Self; 5] =
        [Self::Nftables, Self::Haproxy, Self::Nginx, Self::Reflector, Self::Wvs];

    /// The program it needs, with the package that has it, unless it is ours.
    pub(crate) fn program(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Nftables => Some(("nft", "nftables")),
            Self::Haproxy => Some(("haproxy", "haproxy")),
            Self::Nginx => Some(("nginx", "nginx libnginx-mod-stream")),
            Self::Reflector | Self::Wvs => None,
        }
    }

    /// Whether it takes datagrams.
    pub(crate) fn has_datagrams(self) -> bool {
        self != Self::Haproxy
    }

    /// Whether it ends connections and opens others to the server, instead of passing packets on.
    fn is_proxy(self) -> bool {
        matches!(self, Self::Haproxy | Self::Nginx)
    }
}

/// A contestant at work.
pub(crate) struct Running<'a> {
    peer: Peer,
    lab: &'a Lab,
    folder: &'a Path,
    process: Option<Process>,
}

impl<'a> Running<'a> {
    /// Starts `peer` and waits until it serves.
    pub(crate) fn start(peer: Peer, lab: &'a Lab, folder: &'a Path) -> Fallible<Self> {
        let mut running = Self { peer, lab, folder, process: None };
        running.process = running.set_up()?;
        let give_up = Instant::now() + START_PATIENCE;
        while let Err(error) = load::probe(&lab.client, peer.has_datagrams()) {
            if let Some(process) = &mut running.process {
                process.check_running()?;
            }
            if Instant::now() > give_up {
                let log = running.process.as_ref().map(Process::log).unwrap_or_default();
                return Err(format!("{peer} does not serve: {error}\n{log}").into());
            }
            thread::sleep(PROBE_INTERVAL);
        }
        Ok(running)
    }

    fn set_up(&self) -> Fallible<Option<Process>> {
        let (peer, vip, rip) = (self.peer, lab::VIP, rip());
        let mut command = match peer {
            Peer::Nftables => {
                self.lab.director.run(|| sysctl::write("net/ipv4/ip_forward", "1"))?;
                let rules = self.write(
                    "peers.nft",
                    &format!(
                        "table ip peers {{\n  chain prerouting {{\n    type nat hook prerouting \
                         priority dstnat;\n    ip daddr {vip} counter dnat to {rip}\n  }}\n}}\n"
                    ),
                )?;
                self.command("nft", &["-f", &rules.to_string_lossy()])?;
                return Ok(None);
            }
            Peer::Haproxy => {
                self.own_vip()?;
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(self.write("haproxy.cfg", &haproxy_config())?);
                command
            }
            Peer::Nginx => {
                self.own_vip()?;
                let mut command = Command::new("nginx");
                let config = self.write("nginx.conf", &nginx_config(self.folder))?;
                command.arg("-p").arg(self.folder).arg("-c").arg(config);
                command
            }
            Peer::Reflector => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("--reflect");
                command
            }
            Peer::Wvs => {
                let mut command = Command::new(WVS);
                let config = self.write("wvs.yaml", &self.wvs_config())?;
                command.arg("run").arg("-c").arg(config);
                command
            }
        };
        Process::start(&self.lab.director, peer.to_string(), &mut command, self.folder).map(Some)
    }

    /// Seconds of processor time that its program has had so far; `None` where it has none.
    pub(crate) fn cpu_seconds(&self) -> Fallible<Option<f64>> {
        self.process.as_ref().map(Process::cpu_seconds).transpose()
    }

    /// Ends it, after a look at whether it did the work itself: `connections` at least, those of
    /// the probes left out. Returns what else is worth knowing.
    pub(crate) fn finish(mut self, servers: &Servers, connections: u64) -> Fallible<Vec<String>> {
        let peer = self.peer;
        // Who the servers saw tells proxies from translators.
        let (clients, others) = servers.take_seen();
        let (right, wrong) = if peer.is_proxy() { (others, clients) } else { (clients, others) };
        if right == 0 || wrong > 0 {
            return Err(format!(
                "{peer}: the server saw {clients} connections and datagrams of clients and \
                 {others} of others"
            )
            .into());
        }
        let mut notes = Vec::new();
        match peer {
            Peer::Nftables => {
                let listing = self.command("nft", &["list", "table", "ip", "peers"])?;
                let translated = number_after(&listing, "counter packets ").unwrap_or(0);
                if translated < connections {
                    return Err(format!(
                        "nftables translated {translated} of {connections} connections"
                    )
                    .into());
                }
            }
            Peer::Reflector => {
                let device =
                    self.lab.director.run(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
                let line =
                    device.lines().find(|line| line.trim_start().starts_with(DEVICE)).unwrap_or("");
                let fields: Vec<_> = line.split_whitespace().collect();
                let sent = fields.get(10).and_then(|field| field.parse::<u64>().ok());
                if sent.unwrap_or(0) < connections {
                    return Err(format!("the reflector's device saw {line:?}").into());
                }
                let dropped = fields.get(12).unwrap_or(&"?");
                if *dropped != "0" {
                    notes.push(format!("{dropped} packets found the queues of its device full"));
                }
            }
            Peer::Wvs => notes = self.check_director(connections)?,
            Peer::Haproxy | Peer::Nginx => {}
        }
        if let Some(process) = self.process.take() {
            let log = process.stop()?;
            if peer == Peer::Wvs {
                let warnings =
                    log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
                notes.extend(warnings.map(str::to_owned));
            }
        }
        Ok(notes)
    }

    /// Every connection was placed by the plugin.
    fn check_director(&self, connections: u64) -> Fallible<Vec<String>> {
        let socket = self.folder.join("wvs.sock");
        let mut list = Command::new(WVS);
        list.args(["list", "--json", "--socket"]).arg(socket);
        let snapshot: Snapshot =
            serde_json::from_str(&run(&self.lab.director, &mut list, COMMAND_PATIENCE)?)?;
        let mut opened = 0;
        for service in &snapshot.services.services {
            let (placed, all) = (service.scheduling, service.traffic.connections);
            opened += all;
            if placed.picked != all || placed.fallback > 0 || placed.no_server > 0 {
                return Err(format!(
                    "{}: of {all} connections {} were placed by the plugin, {} by the director, \
                     {} not at all",
                    service.name, placed.picked, placed.fallback, placed.no_server
                )
                .into());
            }
        }
        if opened < connections {
            return Err(format!("WVS opened {opened} of {connections} connections").into());
        }
        let stats = &snapshot.stats;
        let mut notes = Vec::new();
        for (reason, count) in stats.packets.dropped.iter().filter(|(_, count)| **count > 0) {
            notes.push(format!("{count} packets dropped: {reason}"));
        }
        for (name, count) in [
            ("answers of its own", stats.packets.replied),
            ("packets passed on untouched", stats.packets.passed),
            ("failed reads", stats.device.read_errors),
            ("failed writes", stats.device.write_errors),
        ] {
            if count > 0 {
                notes.push(format!("{count} {name}"));
            }
        }
        Ok(notes)
    }

    fn wvs_config(&self) -> String {
        let (vip, rip) = (lab::VIP, rip());
        let socket = self.folder.join("wvs.sock");
        let mut text = format!("admin: {{ socket: \"{}\" }}\nservices:\n", socket.display());
        for (name, protocol, port) in [
            ("requests", "tcp", REQUEST_PORT),
            ("bulk", "tcp", BULK_PORT),
            ("datagrams", "udp", DATAGRAM_PORT),
        ] {
            let _ = writeln!(
                text,
                "  - {{ name: {name}, vip: {vip}, port: {port}, protocol: {protocol}, \
                 scheduler: rr, servers: [{{ address: {rip} }}] }}"
            );
        }
        text
    }

    /// Makes the VIP an address of the director's own, as proxies need it.
    fn own_vip(&self) -> Fallible<()> {
        self.command("ip", &["address", "add", &format!("{}/32", lab::VIP), "dev", "lo"]).map(drop)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Fallible<String> {
        run(&self.lab.director, Command::new(program).args(arguments), COMMAND_PATIENCE)
    }

    fn write(&self, name: &str, text: &str) -> Fallible<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

/// Leaves the director's host as it was, whatever happened.
impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.process = None;
        let _ = match self.peer {
            Peer::Nftables => {
                let _ = self.lab.director.run(|| sysctl::write("net/ipv4/ip_forward", "0"));
                self.command("nft", &["delete", "table", "ip", "peers"])
            }
            Peer::Haproxy | Peer::Nginx => {
                let vip = format!("{}/32", lab::VIP);
                self.command("ip", &["address", "delete", &vip, "dev", "lo"])
            }
            Peer::Reflector | Peer::Wvs => return,
        };
    }
}

fn haproxy_config() -> String {
    let (vip, rip, threads) = (lab::VIP, rip(), crate::processors());
    let mut text = format!(
        "global\n  nbthread {threads}\n  maxconn 4000\n\ndefaults\n  mode tcp\n  timeout connect \
         5s\n  timeout client 30s\n  timeout server 30s\n"
    );
    for (name, port) in [("requests", REQUEST_PORT), ("bulk", BULK_PORT)] {
        let _ =
            write!(text, "\nlisten {name}\n  bind {vip}:{port}\n  server server1 {rip}:{port}\n");
    }
    text
}

fn nginx_config(folder: &Path) -> String {
    let (vip, rip, workers) = (lab::VIP, rip(), crate::processors());
    let module = NGINX_STREAM_MODULES.into_iter().find(|module| Path::new(module).exists());
    let module = module.map(|module| format!("load_module {module};\n")).unwrap_or_default();
    let pid = folder.join("nginx.pid");
    let pid = pid.display();
    format!(
        "{module}user root;\ndaemon off;\nworker_processes {workers};\nworker_rlimit_nofile \
         16384;\npid {pid};\nerror_log stderr error;\nevents {{ worker_connections 8192; \
         }}\nstream {{\n  server {{ listen {vip}:{REQUEST_PORT} reuseport; proxy_pass \
         {rip}:{REQUEST_PORT}; }}\n  server {{ listen {vip}:{BULK_PORT} reuseport; proxy_pass \
         {rip}:{BULK_PORT}; proxy_buffer_size 64k; }}\n  server {{ listen {vip}:{DATAGRAM_PORT} \
         udp reuseport; proxy_pass {rip}:{DATAGRAM_PORT}; proxy_responses 1; }}\n}}\n"
    )
}

fn number_after(text: &str, mark: &str) -> Option<u64> {
    let (_, rest) = text.split_once(mark)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
