//! Connections, in the columns of `ipvsadm -Lnc`.

use std::fmt::Write as _;

use super::address;
use crate::control::snapshot::{ConnectionList, ConnectionSnapshot};

/// The listing of connections.
#[must_use]
pub fn list(list: &ConnectionList) -> String {
    let mut text = String::from(
        "WVS connection entries\n\
         pro expire state       source                virtual               destination           gen\n",
    );
    for connection in &list.connections {
        let ConnectionSnapshot { protocol, expires_in_ms, state, client, vip, server, generation } =
            connection;
        let seconds = expires_in_ms / 1_000;
        let expire = format!("{:02}:{:02}", seconds / 60, seconds % 60);
        let protocol = protocol.to_ascii_uppercase();
        let [client, vip, server] = [client, vip, server].map(|end| address(end.ip(), end.port()));
        let generation = if *generation == 0 { "-".to_owned() } else { generation.to_string() };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{protocol:<4}{expire:<7}{state:<12}{client:<21} {vip:<21} {server:<21} {generation}"
        );
    }
    let more = list.total.saturating_sub(list.connections.len());
    if more > 0 {
        let _ = writeln!(text, "and {more} more; --limit shows more of them");
    }
    text
}
