//! A TUN device of several queues that passes packets of up to 64 KiB.

use std::ffi::c_char;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::libc;

use crate::Fallible;

/// `struct virtio_net_hdr` in front of each packet.
pub(crate) const HEADER_OCTETS: usize = 10;

/// In the first octet of the header: the transport checksum is still to be finished.
pub(crate) const NEEDS_CHECKSUM: u8 = 1;

mod request {
    nix::ioctl_write_ptr_bad!(
        set_interface,
        nix::request_code_write!(b'T', 202, size_of::<nix::libc::c_int>()),
        nix::libc::ifreq
    );
    nix::ioctl_write_int_bad!(
        set_offload,
        nix::request_code_write!(b'T', 208, size_of::<nix::libc::c_uint>())
    );
}

/// Makes the device, sets it up and returns its queues, whose reads block.
pub(crate) fn open(name: &str, mtu: u16, queues: usize) -> Fallible<Vec<File>> {
    let queues: Vec<_> = (0..queues).map(|_| attach(name)).collect::<io::Result<_>>()?;
    let mtu = mtu.to_string();
    let up = ["link", "set", name, "mtu", &mtu, "txqueuelen", "1000", "up"];
    if Command::new("ip").args(up).status()?.success() {
        Ok(queues)
    } else {
        Err(format!("ip {} failed", up.join(" ")).into())
    }
}

fn attach(name: &str) -> io::Result<File> {
    let queue = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE | libc::IFF_VNET_HDR;
    let ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
    let request = libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags } };
    // SAFETY: TUNSETIFF reads an `ifreq`, which lives until the call returns.
    unsafe { request::set_interface(queue.as_raw_fd(), &raw const request) }?;
    let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    let offloads = libc::c_int::try_from(offloads).map_err(io::Error::other)?;
    // SAFETY: TUNSETOFFLOAD takes a number.
    unsafe { request::set_offload(queue.as_raw_fd(), offloads) }?;
    Ok(queue)
}
