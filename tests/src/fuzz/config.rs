use std::path::Path;

use wvs::config::Reading;

/// Any text as a configuration: it is understood, or every problem has a place in it.
pub(super) fn config(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let reading = Reading::of_text(Path::new("/etc/wvs/wvs.yaml"), &text);
    // YAML ends a line at either.
    let lines = text.split(['\n', '\r']).count();
    for problem in reading.problems() {
        assert!(!problem.message.is_empty());
        if let Some(place) = problem.place {
            let line = usize::try_from(place.line).expect("64 bits");
            assert!((1..=lines + 1).contains(&line), "{problem} in {lines} lines");
            assert!(place.column >= 1, "{problem}");
        }
    }
    let said = reading.to_string();
    assert!(said.starts_with("/etc/wvs/wvs.yaml: "), "{said}");
    if let Ok((config, _)) = reading.into_config() {
        assert!(config.limits.connections >= 1);
        assert!((1..=15).contains(&config.device.name.len()));
        for service in &config.services {
            for server in &service.servers {
                assert_eq!(server.address.is_ipv6(), service.address().vip.is_ipv6());
                assert!(server.weight <= wvs_core::real_server::WEIGHT_MAX);
            }
        }
    }
}
