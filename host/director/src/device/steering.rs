//! Which queue a packet is read from: a small program in the kernel says.
//!
//! Left to itself the kernel remembers which queue last *wrote* a packet of a flow and hands over
//! the flow's packets there. The director writes what it reads under other addresses, so that the
//! two directions of a connection would change places for ever and packets overtake each other.
//!
//! The program takes the queue from the client's address and port: the source of what goes to a
//! virtual address, the destination of everything else. So both directions of a connection are one
//! thread's, in order, and its table entry stays in one processor's cache.
//!
//! Read first: bpf(2); `Documentation/bpf/standardization/instruction-set.rst` of Linux.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::raw::c_long;
use std::sync::{Mutex, PoisonError};

use nix::libc;

/// Octets of the map's keys: an address as four numbers in the byte order of the machine, IPv4 with
/// three zeros before it.
const KEY_OCTETS: u32 = 16;

/// The virtual addresses that connections are led to queues by. Those beyond are served as well: only
/// the two directions of their connections may be different threads', and all that clients send to one
/// port is one thread's.
const VIPS_MAX: u32 = 65_536;

/// The map as small as kernels before Linux 5.11 let it be: they count all that it may ever hold
/// against the locked memory that a process may have, as a rule 64 KiB.
const VIPS_MAX_OLD: u32 = 512;

/// Which virtual addresses the program knows. May be changed while packets pass: a connection of an
/// address that comes or goes changes its queue at most once.
#[derive(Debug, Default)]
pub struct Steering {
    /// `None` where nothing is steered: with one queue.
    map: Option<VipMap>,
}

#[derive(Debug)]
struct VipMap {
    map: OwnedFd,
    vips_max: usize,
    vips: Mutex<BTreeSet<IpAddr>>,
}

impl Steering {
    /// Makes the program for these virtual addresses. It lives as long as the descriptor or a device
    /// that uses it.
    ///
    /// # Errors
    /// `EPERM` without `CAP_BPF`, where users may not load programs; `ENOSYS` on kernels without.
    pub(super) fn load(vips: &[IpAddr]) -> io::Result<(Self, OwnedFd)> {
        let (map, vips_max) = match make_map(VIPS_MAX) {
            Ok(map) => (map, VIPS_MAX),
            Err(_) => (make_map(VIPS_MAX_OLD)?, VIPS_MAX_OLD),
        };
        let vips_max = usize::try_from(vips_max).unwrap_or(usize::MAX);
        let program = load_program(&program(map.as_raw_fd()))?;
        let steering = Self { map: Some(VipMap { map, vips_max, vips: Mutex::default() }) };
        steering.set_vips(vips)?;
        Ok((steering, program))
    }

    /// Leads connections of these virtual addresses to queues from now on, and of no others. What is
    /// there already is not touched. Returns how many are more than there is room for: which ones,
    /// stays the same as long as the addresses do. Nothing to do with one queue.
    ///
    /// # Errors
    /// The kernel's, such as no memory; some addresses may then be old and some new.
    pub fn set_vips(&self, vips: &[IpAddr]) -> io::Result<usize> {
        let Some(VipMap { map, vips_max, vips: known }) = &self.map else { return Ok(0) };
        // A thread that panicked has left the set as the map was.
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let all: BTreeSet<IpAddr> = vips.iter().copied().collect();
        let gone: Vec<IpAddr> = known.difference(&all).copied().collect();
        for vip in gone {
            change_map(map, MapChange::Remove, vip)?;
            known.remove(&vip);
        }
        let new: Vec<IpAddr> = all.difference(&known).copied().collect();
        let room = vips_max.saturating_sub(known.len());
        for vip in new.iter().take(room) {
            change_map(map, MapChange::Add, *vip)?;
            known.insert(*vip);
        }
        let beyond = new.len().saturating_sub(room);
        if beyond > 0 {
            tracing::warn!(
                beyond,
                most = vips_max,
                "more virtual addresses than connections can be led to queues by: those beyond are \
                 served with less order"
            );
        }
        Ok(beyond)
    }
}

/// A hash map for so many virtual addresses, which are its keys.
fn make_map(entries_max: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        kind: u32,
        key_octets: u32,
        value_octets: u32,
        entries_max: u32,
        flags: u32,
    }
    const MAP_CREATE: c_long = 0;
    const MAP_TYPE_HASH: u32 = 1;
    /// Memory for an entry is taken when it comes.
    const NO_PREALLOC: u32 = 1;

    let create = Create {
        kind: MAP_TYPE_HASH,
        key_octets: KEY_OCTETS,
        value_octets: 4,
        entries_max,
        flags: NO_PREALLOC,
    };
    descriptor(bpf(MAP_CREATE, &create)?)
}

/// What may happen to an entry of the map, as a command of bpf(2).
#[derive(Clone, Copy, Debug)]
enum MapChange {
    Add = 2,
    Remove = 3,
}

fn change_map(map: &OwnedFd, change: MapChange, vip: IpAddr) -> io::Result<()> {
    #[repr(C)]
    struct Element {
        map: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let (key, value) = (key(vip), 1_u32);
    let element = Element {
        map: map.as_raw_fd().cast_unsigned(),
        padding: 0,
        key: address_of(&key),
        // The kernel refuses what a command does not have.
        value: if matches!(change, MapChange::Add) { address_of(&value) } else { 0 },
        flags: 0,
    };
    bpf(change as c_long, &element).map(drop)
}

fn key(vip: IpAddr) -> [u32; 4] {
    match vip {
        IpAddr::V4(vip) => [0, 0, 0, vip.to_bits()],
        IpAddr::V6(vip) => {
            let [a, b, c, d, e, f, g, h] = vip.segments().map(u32::from);
            [a << 16 | b, c << 16 | d, e << 16 | f, g << 16 | h]
        }
    }
}

fn load_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        instructions: u32,
        first: u64,
        license: u64,
        log_level: u32,
        log_octets: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    const PROG_LOAD: c_long = 5;
    const PROG_TYPE_SOCKET_FILTER: u32 = 1;

    let load = Load {
        kind: PROG_TYPE_SOCKET_FILTER,
        instructions: u32::try_from(program.len()).unwrap_or(u32::MAX),
        first: address_of(program),
        license: address_of(c"MIT OR Apache-2.0".to_bytes_with_nul()),
        log_level: 0,
        log_octets: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    descriptor(bpf(PROG_LOAD, &load)?)
}

/// The kernel takes addresses as numbers of 64 bits.
fn address_of<T: ?Sized>(value: &T) -> u64 {
    u64::try_from((&raw const *value).cast::<()>().addr()).unwrap_or(u64::MAX)
}

fn bpf<T>(command: c_long, attributes: &T) -> io::Result<c_long> {
    // SAFETY: `attributes` is one of the structures above for its command, which the kernel fills
    // up with zeros; what it leads to is read during the call only, and outlives it.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(result: c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it for us, closed upon exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `struct bpf_insn` of `linux/bpf.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register of the machine. R0 is what calls and packet loads answer and what the program
/// returns; those change R1 to R5, the arguments; R6 to R9 stay; R10 is the frame's end.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Register {
    R0,
    R1,
    R2,
    R3,
    R6 = 6,
    R7,
    R8,
    R9,
    R10,
}

use Register::{R0, R1, R2, R3, R6, R7, R8, R9, R10};

/// Where packet loads count from is in R6 by rule of the machine.
const PACKET: Register = R6;
/// Where in the packet the ports are; 0 for nowhere.
const PORTS: Register = R7;
/// A length at first, then where on the stack the client's address is.
const CLIENT: Register = R8;
const HASH: Register = R9;

/// Places on the stack, below its end.
const DESTINATION: i16 = -16;
const SOURCE: i16 = -32;

/// 2^64 divided by the golden ratio: each bit of a factor moves half of the product's upper bits.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

const OCTET: u8 = 0x10;
const HALF: u8 = 0x08;
const WORD: u8 = 0x00;
const DOUBLE: u8 = 0x18;

const ADD: u8 = 0x00;
const MULTIPLY: u8 = 0x20;
const AND: u8 = 0x50;
const LEFT: u8 = 0x60;
const RIGHT: u8 = 0x70;
const XOR: u8 = 0xa0;
const MOVE: u8 = 0xb0;

const ALWAYS: u8 = 0x00;
const EQUAL: u8 = 0x10;
const NOT_EQUAL: u8 = 0x50;

const LOOK_UP: i32 = 1;

const fn instruction(
    code: u8,
    to: Register,
    from: Register,
    offset: i16,
    immediate: i32,
) -> Instruction {
    Instruction { code, registers: to as u8 | (from as u8) << 4, offset, immediate }
}

/// `to = to OPERATION value`.
const fn with_value(operation: u8, to: Register, value: i32) -> Instruction {
    instruction(0x07 | operation, to, R0, 0, value)
}

/// `to = to OPERATION from`.
const fn with(operation: u8, to: Register, from: Register) -> Instruction {
    instruction(0x0f | operation, to, from, 0, 0)
}

/// `if register CONDITION value, skip so many instructions`.
const fn skip(condition: u8, register: Register, value: i32, instructions: i16) -> Instruction {
    instruction(0x05 | condition, register, R0, instructions, value)
}

/// `R0 = the octets of the packet at offset, as a number`. Beyond the packet's end the program ends
/// with 0.
const fn packet(size: u8, offset: i32) -> Instruction {
    instruction(0x20 | size, R0, R0, 0, offset)
}

/// The same at the offset in a register.
const fn packet_at(size: u8, offset: Register) -> Instruction {
    instruction(0x40 | size, R0, offset, 0, 0)
}

/// `stack[place] = from`.
const fn store(size: u8, place: i16, from: Register) -> Instruction {
    instruction(0x63 | size, R10, from, place, 0)
}

/// `to = memory[address + offset]`.
const fn load_from(size: u8, to: Register, address: Register, offset: i16) -> Instruction {
    instruction(0x61 | size, to, address, offset, 0)
}

/// `to = value`: the kind says whether the value is a number or a map. Takes two places.
const fn wide(to: Register, kind: u8, value: u64) -> [Instruction; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [
        Instruction {
            code: 0x18,
            registers: to as u8 | kind << 4,
            offset: 0,
            immediate: i32::from_le_bytes([a, b, c, d]),
        },
        Instruction {
            code: 0,
            registers: 0,
            offset: 0,
            immediate: i32::from_le_bytes([e, f, g, h]),
        },
    ]
}

/// The program. The kernel takes its result modulo the number of queues.
fn program(map: RawFd) -> Vec<Instruction> {
    const NUMBER: u8 = 0;
    const MAP: u8 = 1;
    const RETURN: Instruction = instruction(0x95, R0, R0, 0, 0);
    const CALL: u8 = 0x85;
    let map = u64::from(map.cast_unsigned());

    let start = [
        with(MOVE, PACKET, R1),
        with_value(MOVE, PORTS, 0),
        // Both addresses zero: IPv4 fills in the last word of each only.
        store(DOUBLE, DESTINATION, PORTS),
        store(DOUBLE, DESTINATION + 8, PORTS),
        store(DOUBLE, SOURCE, PORTS),
        store(DOUBLE, SOURCE + 8, PORTS),
        // The version, with the header's length kept aside for IPv4.
        packet(OCTET, 0),
        with(MOVE, CLIENT, R0),
        with_value(RIGHT, R0, 4),
    ];
    let ipv4 = [
        packet(WORD, 16),
        store(WORD, DESTINATION + 12, R0),
        packet(WORD, 12),
        store(WORD, SOURCE + 12, R0),
        // The protocol; none for fragments, since all of a packet must go to one queue and only the
        // first has ports.
        packet(OCTET, 9),
        with(MOVE, HASH, R0),
        packet(HALF, 6),
        with_value(AND, R0, 0x3fff),
        skip(EQUAL, R0, 0, 1),
        with_value(MOVE, HASH, 0),
        with(MOVE, R0, HASH),
        with_value(AND, CLIENT, 0x0f),
        with_value(LEFT, CLIENT, 2),
    ];
    let ipv6 = [
        packet(WORD, 24),
        store(WORD, DESTINATION, R0),
        packet(WORD, 28),
        store(WORD, DESTINATION + 4, R0),
        packet(WORD, 32),
        store(WORD, DESTINATION + 8, R0),
        packet(WORD, 36),
        store(WORD, DESTINATION + 12, R0),
        packet(WORD, 8),
        store(WORD, SOURCE, R0),
        packet(WORD, 12),
        store(WORD, SOURCE + 4, R0),
        packet(WORD, 16),
        store(WORD, SOURCE + 8, R0),
        packet(WORD, 20),
        store(WORD, SOURCE + 12, R0),
        // The protocol, unless extension headers hide it, such as that of a fragment.
        packet(OCTET, 6),
        with_value(MOVE, CLIENT, 40),
    ];
    // TCP and UDP have ports, and in the same place.
    let ports = [skip(EQUAL, R0, 6, 1), skip(NOT_EQUAL, R0, 17, 1), with(MOVE, PORTS, CLIENT)];
    // Is the destination a virtual address?
    let [map_low, map_high] = wide(R1, MAP, map);
    let look_up = [
        map_low,
        map_high,
        with(MOVE, R2, R10),
        with_value(ADD, R2, i32::from(DESTINATION)),
        instruction(CALL, R0, R0, 0, LOOK_UP),
        // If so, the client is the source; otherwise the destination, whose port is the second one.
        with(MOVE, CLIENT, R10),
        with_value(ADD, CLIENT, i32::from(SOURCE)),
        skip(NOT_EQUAL, R0, 0, 3),
        with_value(ADD, CLIENT, i32::from(DESTINATION - SOURCE)),
        skip(EQUAL, PORTS, 0, 1),
        with_value(ADD, PORTS, 2),
    ];
    let [mix_low, mix_high] = wide(R3, NUMBER, MIX);
    let hash = [
        load_from(DOUBLE, R1, CLIENT, 0),
        load_from(DOUBLE, HASH, CLIENT, 8),
        mix_low,
        mix_high,
        with(MULTIPLY, R1, R3),
        with(ADD, HASH, R1),
        skip(EQUAL, PORTS, 0, 2),
        packet_at(HALF, PORTS),
        with(ADD, HASH, R0),
        mix_low,
        mix_high,
        with(MULTIPLY, HASH, R3),
        with(MOVE, R0, HASH),
        with_value(RIGHT, R0, 32),
        with(XOR, R0, HASH),
        with(MULTIPLY, R0, R3),
        with_value(RIGHT, R0, 32),
        RETURN,
    ];
    let other = [with_value(MOVE, R0, 0), RETURN];

    let steps = |part: &[Instruction]| i16::try_from(part.len()).unwrap_or(i16::MAX);
    [
        &start[..],
        &[skip(EQUAL, R0, 6, 2 + steps(&other) + steps(&ipv4))],
        &[skip(EQUAL, R0, 4, steps(&other))],
        &other,
        &ipv4,
        &[skip(ALWAYS, R0, 0, steps(&ipv6))],
        &ipv6,
        &ports,
        &look_up,
        &hash,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use nix::errno::Errno;

    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

    /// The program, or nothing where it may not be loaded.
    fn loaded() -> Option<OwnedFd> {
        load(&[VIP.into(), VIP6.into()]).map(|(_, program)| program)
    }

    fn load(vips: &[IpAddr]) -> Option<(Steering, OwnedFd)> {
        match Steering::load(vips) {
            Ok(loaded) => Some(loaded),
            Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) => {
                assert!(
                    std::env::var_os("WVS_FORBID_SKIP").is_none_or(|value| value != "1"),
                    "the steering program would not be tested: {error}"
                );
                eprintln!("skipped: no right to load programs into the kernel");
                None
            }
            Err(error) => panic!("the kernel does not take the program: {error}"),
        }
    }

    /// Has the kernel run the program with a packet.
    fn run(program: &OwnedFd, packet: &[u8]) -> u32 {
        #[repr(C)]
        struct TestRun {
            program: u32,
            result: u32,
            octets_in: u32,
            octets_out: u32,
            data_in: u64,
            data_out: u64,
            repeat: u32,
            nanos: u32,
        }
        const PROG_TEST_RUN: c_long = 10;
        // The kernel takes an Ethernet header off before it runs the program.
        let frame = [&[0; 14][..], packet].concat();
        let mut test = TestRun {
            program: program.as_raw_fd().cast_unsigned(),
            result: u32::MAX,
            octets_in: u32::try_from(frame.len()).unwrap(),
            octets_out: 0,
            data_in: address_of(&frame[..]),
            data_out: 0,
            repeat: 1,
            nanos: 0,
        };
        // SAFETY: as in `bpf`; the kernel also writes the result into the structure.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, PROG_TEST_RUN, &raw mut test, size_of::<TestRun>())
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        test.result
    }

    fn v4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(payload);
        packet
    }

    fn v6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(payload);
        packet
    }

    fn ports(from: u16, to: u16) -> Vec<u8> {
        [from.to_be_bytes(), to.to_be_bytes(), [0; 2], [0; 2]].concat()
    }

    #[test]
    fn both_directions_of_a_connection_have_one_number_and_connections_have_many() {
        let Some(program) = loaded() else { return };
        let mut numbers = BTreeSet::new();
        let mut queues = [0; 2];
        for client in 0..16_u8 {
            for port in 40_000..40_016 {
                for protocol in [6, 17] {
                    let address = Ipv4Addr::new(198, 51, 100, client);
                    let request = v4(address, VIP, protocol, 0x4000, &ports(port, 80));
                    let reply = v4(SERVER, address, protocol, 0x4000, &ports(8080, port));
                    let number = run(&program, &request);
                    assert_eq!(number, run(&program, &reply), "{address}:{port}");
                    numbers.insert(number);
                    queues[(number % 2) as usize] += 1;

                    let address = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, client.into());
                    let request = v6(address, VIP6, protocol, &ports(port, 80));
                    let reply = v6(SERVER6, address, protocol, &ports(8080, port));
                    let number = run(&program, &request);
                    assert_eq!(number, run(&program, &reply), "[{address}]:{port}");
                    numbers.insert(number);
                    queues[(number % 2) as usize] += 1;
                }
            }
        }
        assert_eq!(numbers.len(), 512, "numbers collide");
        assert!(queues.iter().all(|connections| (384..=640).contains(connections)), "{queues:?}");
    }

    #[test]
    fn addresses_come_and_go_while_the_program_runs() {
        let (other, client) = (Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(198, 51, 100, 1));
        let Some((steering, program)) = load(&[VIP.into()]) else { return };
        let is_steered = |vip: Ipv4Addr| {
            let request = run(&program, &v4(client, vip, 6, 0x4000, &ports(40_000, 80)));
            request == run(&program, &v4(SERVER, client, 6, 0x4000, &ports(8080, 40_000)))
        };
        assert_eq!([VIP, other].map(is_steered), [true, false]);
        assert_eq!(steering.set_vips(&[other.into(), VIP.into(), other.into()]).unwrap(), 0);
        assert_eq!([VIP, other].map(is_steered), [true, true]);
        assert_eq!(steering.set_vips(&[other.into()]).unwrap(), 0);
        assert_eq!([VIP, other].map(is_steered), [false, true]);
        assert_eq!(steering.set_vips(&[]).unwrap(), 0);
        assert_eq!([VIP, other].map(is_steered), [false, false]);
    }

    #[test]
    fn addresses_beyond_the_map_s_room_do_no_harm() {
        let Some((steering, _program)) = load(&[]) else { return };
        let vips: Vec<IpAddr> =
            (0..VIPS_MAX + 5).map(|number| Ipv4Addr::from_bits(number).into()).collect();
        assert_eq!(steering.set_vips(&vips).unwrap(), 5);
        assert_eq!(steering.set_vips(&vips).unwrap(), 5);
        assert_eq!(steering.set_vips(&vips[5..]).unwrap(), 0);
        // With one queue there is nothing to do.
        assert_eq!(Steering::default().set_vips(&vips).unwrap(), 0);
    }

    #[test]
    fn options_before_the_ports_are_passed_over() {
        let Some(program) = loaded() else { return };
        let client = Ipv4Addr::new(198, 51, 100, 1);
        let plain = v4(client, VIP, 6, 0, &ports(40_000, 80));
        let mut with_options = v4(client, VIP, 6, 0, &[&[1; 8][..], &ports(40_000, 80)].concat());
        with_options[0] = 0x47;
        assert_eq!(run(&program, &with_options), run(&program, &plain));
    }

    #[test]
    fn all_fragments_of_a_packet_have_one_number() {
        let Some(program) = loaded() else { return };
        let client = Ipv4Addr::new(198, 51, 100, 1);
        let numbers: BTreeSet<_> =
            [(0x2000, &ports(40_000, 80)[..]), (6, b"other octets"), (0x2011, b"")]
                .map(|(fragment, payload)| run(&program, &v4(client, VIP, 17, fragment, payload)))
                .into();
        assert_eq!(numbers.len(), 1);
        let client = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
        let numbers: BTreeSet<_> = [&b"first"[..], b"second"]
            .map(|payload| run(&program, &v6(client, VIP6, 44, payload)))
            .into();
        assert_eq!(numbers.len(), 1);
    }

    #[test]
    fn packets_that_are_cut_off_or_of_another_kind_get_some_number() {
        let Some(program) = loaded() else { return };
        let whole = v4(SERVER, VIP, 6, 0, &ports(1, 2));
        for length in 1..whole.len() {
            run(&program, &whole[..length]);
        }
        let whole = v6(SERVER6, VIP6, 6, &ports(1, 2));
        for length in 1..whole.len() {
            run(&program, &whole[..length]);
        }
        assert_eq!(run(&program, &[0xff; 64]), 0);
        assert_eq!(run(&program, &[0x50; 64]), 0);
    }
}
