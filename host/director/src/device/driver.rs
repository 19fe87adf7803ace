//! What is asked of the kernel's TUN driver directly.
//!
//! The crate `tun` makes devices of one queue only, refuses to share a name but not to take over a
//! device that exists, and has no word for offloads and steering. So queues are opened here, and
//! `tun` gets the first one to configure the interface by.
//!
//! Read first: `Documentation/networking/tuntap.rst` and `include/uapi/linux/if_tun.h` of Linux.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::raw::{c_char, c_int, c_short, c_uint};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::frame::VIRTIO_HEADER_OCTETS;

const PATH: &str = "/dev/net/tun";

/// The offloads that every TUN driver of the last ten years has: unfinished checksums and TCP
/// segments to be cut up, also those that carry a congestion mark.
const TCP: c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;

/// UDP datagrams to be cut up, from Linux 6.2 on. The kernel takes both families or none.
const UDP: c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

mod ioctl {
    use nix::libc;

    nix::ioctl_readwrite_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_read_bad!(features, libc::TUNGETFEATURES, libc::c_uint);
    nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
    nix::ioctl_write_ptr!(set_header_octets, b'T', 216, libc::c_int);
    nix::ioctl_read!(set_steering, b'T', 224, libc::c_int);
    nix::ioctl_write_ptr_bad!(set_queue_packets, libc::SIOCSIFTXQLEN, libc::ifreq);
    nix::ioctl_readwrite_bad!(ask_ethtool, libc::SIOCETHTOOL, libc::ifreq);
}

/// Which packets the kernel hands over as they are, to be finished by whoever puts them on a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// None: each packet is complete and fits the MTU.
    #[default]
    Off,
    /// TCP segments of up to 64 KiB, and packets without their checksum.
    Tcp,
    /// UDP datagrams in batches of up to 64 KiB as well.
    TcpUdp,
}

impl Offload {
    /// Its name for people and programs: `off`, `tcp` or `tcp+udp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Tcp => "tcp",
            Self::TcpUdp => "tcp+udp",
        }
    }
}

/// What the driver of this kernel can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features(c_uint);

impl Features {
    pub(super) fn has_queues(self) -> bool {
        self.has(libc::IFF_MULTI_QUEUE)
    }

    pub(super) fn has_virtio_header(self) -> bool {
        self.has(libc::IFF_VNET_HDR)
    }

    fn has(self, flag: c_int) -> bool {
        self.0 & flag.cast_unsigned() != 0
    }
}

/// How the queues of a device are attached: all of one device alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attachment {
    /// Whether the device may have more than one queue.
    pub(super) is_one_of_several: bool,
    /// Whether a virtio header stands in front of each packet.
    pub(super) has_virtio_header: bool,
}

/// A way into the driver, not attached to any device yet.
pub(super) fn open() -> io::Result<File> {
    let flags = libc::O_CLOEXEC;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(PATH)
}

pub(super) fn features(file: &File) -> io::Result<Features> {
    let mut features = 0;
    // SAFETY: the kernel writes one unsigned int to where the pointer leads.
    unsafe { ioctl::features(file.as_raw_fd(), &raw mut features) }?;
    Ok(Features(features))
}

/// Makes the device `name` and attaches `file` to it as its first queue.
///
/// # Errors
/// `EBUSY` when there is an interface of this name, of whichever kind: with several queues the
/// kernel would let a second process attach to the device of the first.
pub(super) fn create(file: &File, name: &str, attachment: Attachment) -> io::Result<()> {
    attach_with(file, name, attachment, libc::IFF_TUN_EXCL)
}

/// Attaches `file` to the device `name` that this process made, as another queue.
pub(super) fn attach(file: &File, name: &str, attachment: Attachment) -> io::Result<()> {
    attach_with(file, name, attachment, 0)
}

fn attach_with(file: &File, name: &str, attachment: Attachment, more: c_int) -> io::Result<()> {
    let Attachment { is_one_of_several, has_virtio_header } = attachment;
    let mut flags = libc::IFF_TUN | libc::IFF_NO_PI | more;
    if is_one_of_several {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    if has_virtio_header {
        flags |= libc::IFF_VNET_HDR;
    }
    let mut request = request(name);
    // The highest of the sixteen flags is the sign.
    request.ifr_ifru.ifru_flags =
        c_short::from_ne_bytes(u16::try_from(flags).map_err(|_| Errno::EINVAL)?.to_ne_bytes());
    // SAFETY: `request` is a whole ifreq with a terminated name, and outlives the call.
    unsafe { ioctl::set_interface(file.as_raw_fd(), &raw mut request) }?;
    if has_virtio_header {
        let octets = c_int::try_from(VIRTIO_HEADER_OCTETS).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the kernel reads one int from where the pointer leads.
        unsafe { ioctl::set_header_octets(file.as_raw_fd(), &raw const octets) }?;
    }
    Ok(())
}

/// Asks for all the offloads that the kernel has; they are the whole device's.
pub(super) fn set_offload(file: &File) -> Offload {
    for (flags, offload) in [(TCP | UDP, Offload::TcpUdp), (TCP, Offload::Tcp)] {
        // SAFETY: the argument is a number and no address.
        if unsafe { ioctl::set_offload(file.as_raw_fd(), flags.cast_signed()) }.is_ok() {
            return offload;
        }
    }
    Offload::Off
}

/// Has `program` choose the queue for each packet that leaves by the device.
pub(super) fn set_steering(file: &File, program: &OwnedFd) -> io::Result<()> {
    let mut program = program.as_raw_fd();
    // SAFETY: the kernel reads one int from where the pointer leads, whatever the name of the
    // request says of the direction.
    unsafe { ioctl::set_steering(file.as_raw_fd(), &raw mut program) }?;
    Ok(())
}

/// Sets how many packets each queue of the device `name` holds.
pub(super) fn set_queue_packets(name: &str, packets: u16) -> io::Result<()> {
    let mut request = request(name);
    // ifr_qlen, which `libc` does not name, is an int in the same union.
    request.ifr_ifru.ifru_metric = packets.into();
    let socket = control_socket()?;
    // SAFETY: `request` is a whole ifreq with a terminated name, and outlives the call.
    unsafe { ioctl::set_queue_packets(socket.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// Whether the interface `name` is there and no TUN device.
pub(super) fn is_of_other_kind(name: &str) -> bool {
    /// `struct ethtool_drvinfo` of `linux/ethtool.h`.
    #[repr(C)]
    struct DriverInfo {
        command: u32,
        driver: [u8; 32],
        version: [u8; 32],
        firmware: [u8; 32],
        bus: [u8; 32],
        rom: [u8; 32],
        reserved: [u8; 12],
        counts: [u32; 5],
    }
    const GET_DRIVER_INFO: u32 = 3;

    let Ok(socket) = control_socket() else { return false };
    let mut info = DriverInfo {
        command: GET_DRIVER_INFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        rom: [0; 32],
        reserved: [0; 12],
        counts: [0; 5],
    };
    let mut request = request(name);
    request.ifr_ifru.ifru_data = (&raw mut info).cast::<c_char>();
    // SAFETY: `request` is a whole ifreq with a terminated name; it leads to a whole DriverInfo,
    // which is what the kernel fills in for this command. Both outlive the call.
    let answer = unsafe { ioctl::ask_ethtool(socket.as_raw_fd(), &raw mut request) };
    match answer {
        // A TAP device has the same driver and another bus.
        Ok(_) => !(info.driver.starts_with(b"tun\0") && info.bus.starts_with(b"tun\0")),
        // One that was there a moment ago and is not any more was somebody's TUN device.
        Err(error) => error != Errno::ENODEV,
    }
}

/// Any socket serves for questions about interfaces.
fn control_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

/// A request about the interface `name`, which is cut so that it stays terminated.
fn request(name: &str) -> libc::ifreq {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_slave: [0; libc::IFNAMSIZ] };
    libc::ifreq { ifr_name, ifr_ifru }
}
