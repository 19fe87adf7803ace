//! How the running director is reached, and by whom.

use std::net::SocketAddr;
use std::path::Path;

use super::reader::{Field, Fields, Reader};
use super::{Config, TcpConfig, keys};

/// `sun_path` less its final zero.
const SOCKET_PATH_OCTETS_MAX: usize = 107;

/// What the owner has to be allowed, and all that anybody can be: to read and to write.
const MODE_MIN: u32 = 0o600;
const MODE_MAX: u32 = 0o666;

/// Write, which is what it takes to connect, for everybody.
const OTHERS: u32 = 0o002;

/// As Linux has it, with its final zero.
const GROUP_OCTETS_MAX: usize = 32;

/// `admin`. Paths in it start at `folder`.
pub(super) fn read(reader: &mut Reader<'_>, field: &Field<'_>, folder: &Path, config: &mut Config) {
    let Some(fields) = reader.fields(field, &keys::ADMIN) else { return };
    if let Some(field) = fields.get("socket") {
        read_socket(reader, &field, folder, config);
    }
    if let Some(field) = fields.get("mode")
        && let Some(mode) = read_mode(reader, &field)
    {
        config.admin.mode = mode;
    }
    if let Some(field) = fields.get("group")
        && let Some(name) = reader.text(&field)
    {
        let is_name = !name.is_empty()
            && name.len() < GROUP_OCTETS_MAX
            && name.bytes().all(|octet| octet.is_ascii_graphic() && octet != b':');
        if is_name {
            config.admin.group = Some(name.to_owned());
        } else {
            let remedy = format!("use {}", keys::ADMIN.values("group"));
            reader.refuse(&field, "is no name of a group", &remedy);
        }
    }
    config.admin.tcp = read_tcp(reader, &fields, folder);
}

fn read_socket(reader: &mut Reader<'_>, field: &Field<'_>, folder: &Path, config: &mut Config) {
    let Some(text) = reader.text(field) else { return };
    let path = folder.join(text);
    if text.is_empty() || path.as_os_str().len() > SOCKET_PATH_OCTETS_MAX {
        let remedy = format!("use {}", keys::ADMIN.values("socket"));
        reader.refuse(field, "is no path for a socket", &remedy);
        return;
    }
    config.socket = path;
}

/// As in `"0660"`: octal, with quotes or without.
fn read_mode(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<u32> {
    let text = reader.text(field)?;
    let is_plain =
        (3..=4).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_plain);
    let mode = mode.filter(|mode| mode & MODE_MIN == MODE_MIN && mode & !MODE_MAX == 0);
    match mode {
        Some(mode) if mode & OTHERS != 0 => {
            let message = "everybody on this host may change what the director does; better 0660 and \
                           a `group`";
            reader.warn(&field.path, field.node.place, message);
        }
        Some(_) => {}
        None => {
            let remedy = format!("use {}", keys::ADMIN.values("mode"));
            reader.refuse(field, "is no mode for a socket", &remedy);
        }
    }
    mode
}

/// `listen` and `token_file`, which go together.
fn read_tcp(reader: &mut Reader<'_>, admin: &Fields<'_>, folder: &Path) -> Option<TcpConfig> {
    let (listen, token_file) = (admin.get("listen"), admin.get("token_file"));
    let address = listen.as_ref().and_then(|field| read_listen(reader, field));
    let path = token_file.as_ref().and_then(|field| {
        let text = reader.text(field)?;
        if text.is_empty() {
            reader.refuse(field, "is no path of a file", "give the file with the token");
            return None;
        }
        Some(folder.join(text))
    });
    match (&listen, &token_file) {
        (Some(listen), None) => {
            let message = "whoever reaches this address could do everything; give a file with a \
                           secret under `token_file`, or remove `listen`";
            reader.error(&listen.path, listen.node.place, message);
        }
        (None, Some(token_file)) => {
            let message = "the token is for an address to listen on; give one under `listen`, or \
                           remove `token_file`";
            reader.error(&token_file.path, token_file.node.place, message);
        }
        _ => {}
    }
    Some(TcpConfig { listen: address?, token_file: path? })
}

/// As in `127.0.0.1:9180`.
fn read_listen(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<SocketAddr> {
    let text = reader.text(field)?;
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    match address {
        Some(address) if !address.ip().is_loopback() => {
            let message = "the token and the answers pass the network unencrypted; better a loopback \
                           address, and something that speaks TLS in front of it";
            reader.warn(&field.path, field.node.place, message);
        }
        Some(_) => {}
        None => {
            let remedy = format!("use {}", keys::ADMIN.values("listen"));
            reader.refuse(field, "is no address to listen on", &remedy);
        }
    }
    address
}
