//! Packets at the tap: what is recorded of them and what of them is wanted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;
use wvs::tap::{
    CAPTURES_MAX, CaptureRefusal, CaptureRequest, Recording, Tap, TapPlace, VerdictKind,
};
use wvs_core::director::Director;
use wvs_core::packet::{Packet, TransportChecksum};
use wvs_core::service::{OnStray, Protocol};
use wvs_core::time::Moment;
use wvs_core::verdict::{DropReason, Verdict};
use wvs_tests::packet::{ACK, RST, SYN, at, cut, echo, icmp_error, tcp, udp};
use wvs_tests::recorded::{Recorded, RecordedPacket};
use wvs_tests::world::{ServiceSpec, World};

const CLIENT: &str = "198.51.100.7:40000";
const VIP: &str = "203.0.113.10:80";
const SERVER: &str = "10.0.0.11:8080";

/// A director with one thread and a tap.
struct Stage {
    director: Arc<Director>,
    tap: Arc<Tap>,
    place: TapPlace,
    now: Moment,
}

impl Stage {
    fn new(services: Vec<ServiceSpec>) -> Self {
        let world = World::new(services);
        let now = world.now();
        let director = Arc::new(world.director);
        let tap = Arc::<Tap>::default();
        let place = TapPlace::new(Arc::clone(&tap), Arc::clone(&director), 0);
        Self { director, tap, place, now }
    }

    fn capture(&self, request: &CaptureRequest) -> Result<Recording, CaptureRefusal> {
        self.tap.capture(request, &self.director, "wvs0", 1)
    }

    /// What the packet loop does with a packet that the device takes: what is sent.
    fn process(&mut self, octets: &[u8]) -> (Verdict, Vec<u8>) {
        self.process_with(octets, TransportChecksum::Complete, true)
    }

    fn process_with(
        &mut self,
        octets: &[u8],
        checksum: TransportChecksum,
        is_written: bool,
    ) -> (Verdict, Vec<u8>) {
        let mut buffer = octets.to_vec();
        buffer.resize(octets.len() + Packet::HEADROOM, 0);
        let mut packet = Packet::new(&mut buffer, octets.len()).with_checksum(checksum);
        let is_shown = self.place.look(&packet);
        let verdict = self.director.process(&mut packet, self.now);
        let length = packet.octets().len();
        if is_shown {
            self.place.show(verdict, &mut buffer[..length], is_written);
        }
        buffer.truncate(length);
        let mut released = vec![0; 2048];
        while let Some(length) = self.director.next_released(&mut released) {
            if is_shown {
                self.place.show_released(&mut released[..length], true);
            }
        }
        (verdict, buffer)
    }
}

/// One TCP service with one server.
fn web() -> Stage {
    Stage::new(vec![ServiceSpec::new(Protocol::Tcp, VIP, &[SERVER])])
}

/// What a recording has until now, and its end.
fn end(mut recording: Recording, stage: &Stage) -> Recorded {
    stage.tap.close();
    let mut file = Vec::new();
    while let Some(octets) = recording.next_octets() {
        file.extend(octets);
    }
    Recorded::read(&file)
}

fn comments(recorded: &Recorded) -> Vec<&str> {
    recorded.packets.iter().map(|packet| &*packet.comment).collect()
}

#[test]
fn a_connection_is_recorded_before_and_after_its_translation() {
    let mut stage = web();
    let recording = stage.capture(&CaptureRequest::default()).unwrap();
    let syn = tcp(at(CLIENT), at(VIP), SYN);
    let syn_ack = tcp(at(SERVER), at(CLIENT), SYN | ACK);
    let (_, sent) = stage.process(&syn);
    let (_, answered) = stage.process(&syn_ack);
    let recorded = end(recording, &stage);

    assert_eq!(recorded.interface, "wvs0");
    let octets: Vec<_> = recorded.packets.iter().map(|packet| packet.octets.clone()).collect();
    assert_eq!(octets, [syn, sent, syn_ack, answered]);
    assert_eq!(
        comments(&recorded),
        [
            "in: forward to 10.0.0.11:8080 (service-1)",
            "out: forwarded to 10.0.0.11:8080 (service-1)",
            "in: forward to 198.51.100.7:40000 from 203.0.113.10:80 (service-1)",
            "out: forwarded to 198.51.100.7:40000 from 203.0.113.10:80 (service-1)",
        ]
    );
    let ways: Vec<_> =
        recorded.packets.iter().map(|packet| (packet.is_outbound(), packet.id)).collect();
    assert_eq!(ways, [(false, 0), (true, 0), (false, 1), (true, 1)]);
    assert!(recorded.packets.is_sorted_by_key(|packet| packet.nanos));
    // Received, dropped for want of room, accepted, delivered.
    assert_eq!(recorded.statistics, [(4, 2), (5, 0), (6, 2), (8, 2)]);
}

#[test]
fn every_decision_has_its_comment() {
    let mut drop_strays = ServiceSpec::new(Protocol::Tcp, "203.0.113.10:81", &[SERVER]);
    drop_strays.settings.on_stray = OnStray::Drop;
    let mut stage = Stage::new(vec![
        ServiceSpec::new(Protocol::Tcp, VIP, &[SERVER]),
        drop_strays,
        ServiceSpec::new(Protocol::Udp, "203.0.113.10:53", &["10.0.0.11:5353"]),
    ]);
    let (client, vip) = (at(CLIENT), at(VIP));
    let translated = stage.process(&udp(client, at("203.0.113.10:53"), b"first")).1;
    let unreachable = icmp_error("10.0.0.11".parse().unwrap(), client.ip(), [3, 3], &translated);
    let pieces = cut(&udp(client, at("203.0.113.10:53"), &[7; 64]), 40, 9);
    let stray = DropReason::Stray.description();
    for (packet, expected) in [
        (
            tcp(client, vip, ACK),
            &[
                "in: answer with a reset (service-1)",
                "out: the director's own answer, a reset (service-1)",
            ][..],
        ),
        (
            tcp(client, at("203.0.113.10:81"), ACK),
            &[&*format!("dropped: stray: {stray} (service-2)")],
        ),
        (
            udp(client, at("203.0.113.10:9"), b""),
            &["in: answer with an ICMP error", "out: the director's own answer, an ICMP error"],
        ),
        (
            echo(client.ip(), vip.ip(), true, 7),
            &["in: answer with an echo reply", "out: the director's own answer, an echo reply"],
        ),
        (tcp(client, at("192.0.2.9:80"), SYN), &["passed: concerns no service"]),
        (
            unreachable,
            &[
                "in: forward the ICMP error to 198.51.100.7 from 203.0.113.10 (service-3)",
                "out: forwarded the ICMP error to 198.51.100.7 from 203.0.113.10 (service-3)",
            ],
        ),
        (pieces[1].clone(), &["held: a part of a packet whose first part did not come yet"]),
        (
            pieces[0].clone(),
            &[
                "in: forward to 10.0.0.11:5353 (service-3)",
                "out: forwarded to 10.0.0.11:5353 (service-3)",
                "out: a part of a packet that was held",
            ],
        ),
    ] {
        let recording = stage.capture(&CaptureRequest::default()).unwrap();
        let _ = stage.process(&packet);
        // Not by closing the tap, which is for ever.
        let recorded = drain(recording);
        assert_eq!(comments(&recorded), expected);
    }
}

/// What a recording has until now.
fn drain(mut recording: Recording) -> Recorded {
    Recorded::read(&recording.next_octets().unwrap())
}

#[test]
fn unfinished_checksums_and_what_the_device_does_not_take_are_told() {
    let mut stage = web();
    let recording = stage.capture(&CaptureRequest::default()).unwrap();
    let _ = stage.process_with(&tcp(at(CLIENT), at(VIP), SYN), TransportChecksum::Partial, false);
    let recorded = drain(recording);
    let unfinished = "; its checksum is left to the device to finish";
    assert_eq!(
        comments(&recorded),
        [
            format!("in: forward to 10.0.0.11:8080 (service-1){unfinished}"),
            format!(
                "out: forwarded to 10.0.0.11:8080 (service-1){unfinished}; the device did not take it"
            ),
        ]
    );
    let flags: Vec<_> = recorded.packets.iter().map(|packet| packet.flags).collect();
    assert_eq!(flags, [0x201, 0x202]);
}

#[test]
fn only_so_many_octets_are_kept_as_are_asked_for() {
    let mut stage = Stage::new(vec![ServiceSpec::new(Protocol::Udp, VIP, &[SERVER])]);
    let request = CaptureRequest { snap: Some(64), ..CaptureRequest::default() };
    let (short, long) =
        (stage.capture(&request).unwrap(), stage.capture(&CaptureRequest::default()).unwrap());
    let datagram = udp(at(CLIENT), at(VIP), &[7; 1400]);
    let (_, sent) = stage.process(&datagram);
    let (short, long) = (drain(short), drain(long));
    let kept = |recorded: &Recorded| -> Vec<_> {
        recorded
            .packets
            .iter()
            .map(|packet| (packet.octets.clone(), packet.original_octets))
            .collect()
    };
    let length = u32::try_from(datagram.len()).unwrap();
    assert_eq!(kept(&short), [(datagram[..64].to_vec(), length), (sent[..64].to_vec(), length)]);
    assert_eq!(kept(&long), [(datagram, length), (sent, length)]);
    assert_eq!(comments(&short), comments(&long));
}

#[test]
fn a_recording_ends_after_so_many_packets_and_says_so_in_the_file() {
    let mut stage = web();
    let request = CaptureRequest { count: Some(3), ..CaptureRequest::default() };
    let mut recording = stage.capture(&request).unwrap();
    for port in 1..=10 {
        let _ = stage.process(&tcp(SocketAddr::new(at(CLIENT).ip(), port), at(VIP), SYN));
    }
    let recorded = Recorded::read(&recording.next_octets().unwrap());
    assert_eq!(recorded.packets.len(), 6);
    assert_eq!(recorded.statistics, [(4, 10), (5, 0), (6, 10), (8, 3)]);
    assert_eq!(recording.next_octets(), None);
}

#[test]
fn a_recording_ends_when_the_file_is_as_large_as_it_may_be() {
    let mut stage = web();
    let request = CaptureRequest { octets: Some(100_000), ..CaptureRequest::default() };
    let mut recording = stage.capture(&request).unwrap();
    for _ in 0..2_000 {
        let _ = stage.process(&tcp(at(CLIENT), at(VIP), SYN));
    }
    let mut file = Vec::new();
    while let Some(octets) = recording.next_octets() {
        file.extend(octets);
    }
    assert!((100_000..101_000).contains(&file.len()), "{}", file.len());
}

#[test]
fn what_finds_no_room_is_missed_and_counted_and_recording_goes_on() {
    let mut stage = Stage::new(vec![ServiceSpec::new(Protocol::Udp, VIP, &[SERVER])]);
    let mut recording = stage.capture(&CaptureRequest::default()).unwrap();
    // More than the ring has room for, read by nobody.
    let datagram = udp(at(CLIENT), at(VIP), &vec![7; 60_000]);
    for _ in 0..1_000 {
        let (verdict, _) = stage.process(&datagram);
        assert_eq!(verdict, Verdict::Forward);
    }
    let mut file = Vec::new();
    loop {
        match recording.next_octets().unwrap() {
            octets if octets.is_empty() => break,
            octets => file.extend(octets),
        }
    }
    let _ = stage.process(&datagram);
    stage.tap.close();
    while let Some(octets) = recording.next_octets() {
        file.extend(octets);
    }
    let recorded = Recorded::read(&file);
    let written = recorded.packets.len() / 2;
    assert!((100..300).contains(&written), "{written}");
    assert_eq!(recorded.missed(), 1_001 - u64::try_from(written).unwrap());
    assert_eq!(stage.tap.counters().missed.get(), recorded.missed());
}

#[test]
fn there_are_so_many_captures_and_no_more_until_one_is_dropped() {
    let mut stage = web();
    let request = CaptureRequest::default();
    let mut recordings: Vec<_> =
        (0..CAPTURES_MAX).map(|_| stage.capture(&request).unwrap()).collect();
    assert_eq!(stage.capture(&request).err(), Some(CaptureRefusal::TooMany));
    let _ = stage.process(&tcp(at(CLIENT), at(VIP), SYN));
    recordings.pop();
    recordings.push(stage.capture(&request).unwrap());
    let _ = stage.process(&tcp(at(CLIENT), at(VIP), SYN));
    let packets: Vec<_> =
        recordings.into_iter().map(|recording| drain(recording).packets.len()).collect();
    assert_eq!(packets, [4, 4, 4, 2]);
    assert_eq!(stage.tap.open(), 0);
    // Nobody looks any more.
    let mut buffer = [0; 64];
    assert!(!stage.place.look(&Packet::new(&mut buffer, 40)));
}

#[test]
fn what_cannot_be_captured_is_refused_with_what_to_do() {
    let stage = web();
    let refused = |request| stage.capture(&request).unwrap_err().to_string();
    let request =
        CaptureRequest { service: Some("nobody".to_owned()), ..CaptureRequest::default() };
    assert_eq!(refused(request), "there is no service nobody; `wvs plugin list` shows all");
    let request = CaptureRequest { snap: Some(63), ..CaptureRequest::default() };
    assert_eq!(
        refused(request),
        "a snapshot length of 63 is not possible; it is from 64 to 262144 octets"
    );
    let request = CaptureRequest { reasons: vec!["strey".to_owned()], ..CaptureRequest::default() };
    assert!(
        refused(request).starts_with("`strey` is no reason to drop a packet; there are not_ip, ")
    );
    let request = CaptureRequest { ports: vec![1; 65], ..CaptureRequest::default() };
    assert_eq!(refused(request), "65 ports are too many; 64 are possible");
}

#[test]
fn a_service_s_packets_are_those_of_either_side_and_errors_about_them_and_late_replies() {
    let mut stage = Stage::new(vec![
        ServiceSpec::new(Protocol::Udp, "203.0.113.10:53", &["10.0.0.11:5353"]),
        ServiceSpec::new(Protocol::Udp, "203.0.113.10:54", &["10.0.0.11:5454"]),
    ]);
    let request =
        CaptureRequest { service: Some("service-1".to_owned()), ..CaptureRequest::default() };
    let recording = stage.capture(&request).unwrap();
    let (client, ours, others) = (at(CLIENT), at("203.0.113.10:53"), at("203.0.113.10:54"));
    let mut wanted = 0;
    let mut process = |packet: &[u8], is_wanted: bool| {
        wanted += u64::from(is_wanted);
        stage.process(packet).1
    };
    let translated = process(&udp(client, ours, b"ours"), true);
    process(&udp(client, others, b"theirs"), false);
    process(&udp(at("10.0.0.11:5353"), client, b"ours"), true);
    process(&udp(at("10.0.0.11:5454"), client, b"theirs"), false);
    let rip = "10.0.0.11".parse().unwrap();
    process(&icmp_error(rip, client.ip(), [3, 3], &translated), true);
    process(&udp(at("10.0.0.11:5353"), at("198.51.100.8:1"), b"late"), true);
    process(&udp(at("10.0.0.11:5454"), at("198.51.100.8:1"), b"late"), false);
    assert_eq!(recording.statistics().matched, wanted);
    assert_eq!(stage.director.verdicts().dropped(DropReason::NoConnection), 2);
}

/// Some packets of each kind, all of which are about the same few addresses and ports.
fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let ends = || {
        prop::sample::select(vec![
            at(CLIENT),
            at("198.51.100.8:40001"),
            at(VIP),
            at("203.0.113.10:81"),
            at(SERVER),
            at("10.0.0.12:9"),
        ])
    };
    (ends(), ends(), 0..4, prop::sample::select(vec![SYN, ACK, RST, SYN | ACK])).prop_map(
        |(from, to, kind, flags)| match kind {
            0 | 1 => tcp(from, to, flags),
            2 => udp(from, to, b"data"),
            _ => echo(from.ip(), to.ip(), true, 1),
        },
    )
}

/// What of a recorded packet a criterion may look at, by a parser that is not the tap's.
fn ends_of(packets: &[&RecordedPacket]) -> Vec<(IpAddr, Option<u16>)> {
    let mut ends = Vec::new();
    for packet in packets {
        let sliced = etherparse::SlicedPacket::from_ip(&packet.octets).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = &sliced.net else { panic!("{sliced:?}") };
        let (from, to) = match &sliced.transport {
            Some(etherparse::TransportSlice::Tcp(tcp)) => {
                (Some(tcp.source_port()), Some(tcp.destination_port()))
            }
            Some(etherparse::TransportSlice::Udp(udp)) => {
                (Some(udp.source_port()), Some(udp.destination_port()))
            }
            _ => (None, None),
        };
        ends.push((IpAddr::V4(ip.header().source_addr()), from));
        ends.push((IpAddr::V4(ip.header().destination_addr()), to));
    }
    ends
}

proptest! {
    /// The packets of a filtered capture are those of one without a filter that meet the criteria.
    #[test]
    fn a_filter_takes_what_meets_all_criteria(
        packets in prop::collection::vec(any_packet(), 1..40),
        host in prop::option::of(prop::sample::select(vec!["10.0.0.0/28", "203.0.113.10", "198.51.100.8/32"])),
        port in prop::option::of(prop::sample::select(vec![80_u16, 8080, 40_000])),
        is_tcp in any::<bool>(),
        verdict in prop::option::of(prop::sample::select(vec![
            VerdictKind::Forwarded, VerdictKind::Answered, VerdictKind::Passed, VerdictKind::Dropped,
        ])),
    ) {
        let mut stage = web();
        let request = CaptureRequest {
            hosts: host.iter().map(|host| host.parse().unwrap()).collect(),
            ports: port.into_iter().collect(),
            protocol: is_tcp.then(|| "tcp".to_owned()),
            verdicts: verdict.into_iter().collect(),
            ..CaptureRequest::default()
        };
        let (all, some) = (stage.capture(&CaptureRequest::default()).unwrap(), stage.capture(&request).unwrap());
        for packet in &packets {
            let _ = stage.process(packet);
        }
        let (all, some) = (drain(all), drain(some));
        let is_in = |address: IpAddr| match host {
            Some("10.0.0.0/28") => matches!(address, IpAddr::V4(v4) if v4.octets()[..3] == [10, 0, 0] && v4.octets()[3] < 16),
            Some("203.0.113.10") => address == at(VIP).ip(),
            Some(_) => address == at("198.51.100.8:1").ip(),
            None => true,
        };
        let mut expected = Vec::new();
        for both in all.packets.chunk_by(|one, other| one.id == other.id) {
            let ends = ends_of(&both.iter().collect::<Vec<_>>());
            let comment = &both[0].comment;
            let meets = ends.iter().any(|(address, _)| is_in(*address))
                && port.is_none_or(|port| ends.iter().any(|(_, other)| *other == Some(port)))
                && (!is_tcp || both.iter().any(|packet| packet.octets[9] == 6))
                && match verdict {
                    None => true,
                    Some(VerdictKind::Forwarded) => comment.starts_with("in: forward "),
                    Some(VerdictKind::Answered) => comment.starts_with("in: answer "),
                    Some(VerdictKind::Passed) => comment.starts_with("passed: "),
                    Some(_) => comment.starts_with("dropped: "),
                };
            if meets {
                expected.extend(both.iter().map(|packet| (packet.octets.clone(), packet.comment.clone())));
            }
        }
        let seen: Vec<_> =
            some.packets.into_iter().map(|packet| (packet.octets, packet.comment)).collect();
        prop_assert_eq!(seen, expected);
    }
}
