//! The limit of the device: a program that does with each packet what a NAT cannot avoid, and
//! nothing else. No table, no scheduler, no check: one VIP, one real server, addresses only.
//!
//! Read first: virtio 1.2 section 5.1.6 (`struct virtio_net_hdr`), RFC 1624.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::signal::unix::{SignalKind, signal};
use wvs::device::{Device, DeviceNeeds, Offload};
use wvs::lab;
use wvs::route::{self, RouteNeeds};
use wvs_core::service::Protocol;

use crate::Fallible;
use crate::servers::{BULK_PORT, DATAGRAM_PORT, REQUEST_PORT, rip};

/// The device's name.
pub(crate) const DEVICE: &str = "reflect0";

/// `struct virtio_net_hdr` in front of each packet.
const HEADER_OCTETS: usize = 10;

/// In the first octet of the header: the transport checksum is still to be finished.
const NEEDS_CHECKSUM: u8 = 1;

/// The longest IPv4 packet, behind its header.
const FRAME_OCTETS_MAX: usize = HEADER_OCTETS + 65_535;

/// Reflects until SIGTERM. To be run on the director's host.
pub(crate) fn run() -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = |protocol, port| (protocol, SocketAddr::new(rip(), port));
        let needs = RouteNeeds {
            device: DEVICE.to_owned(),
            vips: vec![lab::VIP],
            servers: vec![
                server(Protocol::Tcp, REQUEST_PORT),
                server(Protocol::Tcp, BULK_PORT),
                server(Protocol::Udp, DATAGRAM_PORT),
            ],
            ..RouteNeeds::default()
        };
        let device = Device::open(&DeviceNeeds {
            name: DEVICE.to_owned(),
            mtu: route::mtu(&needs).await?,
            queues: None,
            offload: true,
            vips: needs.vips.clone(),
        })?;
        if device.offload() == Offload::Off {
            return Err("the kernel has no offload for the reflector's device".into());
        }
        for queue in device.into_queues() {
            // A thread that waits in `read` does so in one call.
            fcntl(&queue, FcntlArg::F_SETFL(OFlag::O_RDWR))?;
            thread::spawn(move || reflect(queue));
        }
        let mut stop = signal(SignalKind::terminate())?;
        let routing = route::set_up(&needs).await?;
        stop.recv().await;
        Ok(routing.take_back().await?)
    })
}

fn reflect(mut queue: File) {
    let (IpAddr::V4(vip), IpAddr::V4(rip)) = (lab::VIP, rip()) else { return };
    let mut frame = vec![0; FRAME_OCTETS_MAX];
    while let Ok(read) = queue.read(&mut frame) {
        if translate(&mut frame[..read], vip, rip).is_some() {
            // What the kernel does not take is lost, as on any wire.
            let _ = queue.write_all(&frame[..read]);
        }
    }
}

/// Puts the real server's address for the VIP towards it, and the VIP for the address back.
fn translate(frame: &mut [u8], vip: Ipv4Addr, rip: Ipv4Addr) -> Option<()> {
    let is_partial = frame.first()? & NEEDS_CHECKSUM != 0;
    let packet = frame.get_mut(HEADER_OCTETS..)?;
    let (offset, old, new) = if packet.get(16..20)? == vip.octets() {
        (16, vip, rip)
    } else if packet.get(12..16)? == rip.octets() {
        (12, rip, vip)
    } else {
        return None;
    };
    packet[offset..offset + 4].copy_from_slice(&new.octets());
    let change = change(old, new);
    adjust(packet.get_mut(10..12)?, change);
    let transport = usize::from(packet[0] & 15) * 4;
    let (checksum, may_be_absent) = match packet[9] {
        6 => (transport + 16, false),
        17 => (transport + 6, true),
        _ => return None,
    };
    let checksum = packet.get_mut(checksum..checksum + 2)?;
    if is_partial {
        // The sum of the pseudo-header as it is, not its complement.
        complement(checksum);
        adjust(checksum, change);
        complement(checksum);
    } else if !(may_be_absent && checksum == [0, 0]) {
        adjust(checksum, change);
    }
    Some(())
}

/// What a checksum's complement grows by when `new` takes the place of `old`.
fn change(old: Ipv4Addr, new: Ipv4Addr) -> u32 {
    let words = |address: Ipv4Addr| {
        let [a, b, c, d] = address.octets();
        [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
    };
    let [old_high, old_low] = words(old).map(|word| u32::from(!word));
    let [new_high, new_low] = words(new).map(u32::from);
    old_high + old_low + new_high + new_low
}

/// RFC 1624, equation 3.
fn adjust(checksum: &mut [u8], change: u32) {
    let mut sum = u32::from(!u16::from_be_bytes([checksum[0], checksum[1]])) + change;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [.., high, low] = (!sum).to_be_bytes();
    checksum.copy_from_slice(&[high, low]);
}

fn complement(checksum: &mut [u8]) {
    checksum.iter_mut().for_each(|octet| *octet = !*octet);
}
