//! When a plugin that keeps failing is left alone, and for how long.

/// Faults within [`CALM_MS`] after which a plugin is quarantined.
pub const FAULTS_MAX: usize = 3;

/// Milliseconds without a fault after which earlier ones are forgotten.
pub const CALM_MS: u64 = 10_000;

/// Milliseconds of the first quarantine.
pub const QUARANTINE_MIN_MS: u64 = 1_000;

/// Milliseconds of the longest quarantine: each is twice as long as the one before it.
pub const QUARANTINE_MAX_MS: u64 = 300_000;

/// The conduct of one plugin at one virtual service. All times are the requests' `now_ms`.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    /// When the latest faults were, oldest first.
    faults: [Option<u64>; FAULTS_MAX],
    quarantine: Option<Quarantine>,
}

/// The latest quarantine, under way or served.
#[derive(Clone, Copy, Debug)]
struct Quarantine {
    until_ms: u64,
    length_ms: u64,
}

/// What a fault leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// Nothing yet; `is_first` when there was none for a while.
    Noted { is_first: bool },
    /// The plugin is quarantined for so many milliseconds.
    Quarantined { length_ms: u64 },
}

impl Conduct {
    /// Whether the plugin must not be asked now.
    pub(crate) fn is_quarantined(&self, now_ms: u64) -> bool {
        self.quarantine.is_some_and(|quarantine| now_ms < quarantine.until_ms)
    }

    /// Milliseconds for which the plugin must not be asked from now on.
    pub(crate) fn quarantined_ms(&self, now_ms: u64) -> u64 {
        self.quarantine.map_or(0, |quarantine| quarantine.until_ms.saturating_sub(now_ms))
    }

    /// Takes note of a fault. After a quarantine a single one is enough for the next, until the
    /// plugin was calm for once.
    pub(crate) fn note_fault(&mut self, now_ms: u64) -> Consequence {
        let is_recent = |time: u64| now_ms.saturating_sub(time) < CALM_MS;
        let is_first = !self.faults.iter().flatten().any(|fault| is_recent(*fault));
        self.faults.rotate_left(1);
        if let Some(latest) = self.faults.last_mut() {
            *latest = Some(now_ms);
        }
        let is_on_probation =
            self.quarantine.is_some_and(|quarantine| is_recent(quarantine.until_ms));
        let has_too_many = self.faults.iter().all(|fault| fault.is_some_and(is_recent));
        if is_on_probation || has_too_many {
            Consequence::Quarantined { length_ms: self.quarantine(now_ms) }
        } else {
            Consequence::Noted { is_first }
        }
    }

    /// Quarantines whatever the count of faults, and returns for how many milliseconds.
    pub(crate) fn quarantine(&mut self, now_ms: u64) -> u64 {
        let length_ms = match self.quarantine {
            Some(last) if now_ms.saturating_sub(last.until_ms) < CALM_MS => {
                (last.length_ms * 2).min(QUARANTINE_MAX_MS)
            }
            _ => QUARANTINE_MIN_MS,
        };
        self.faults = Default::default();
        self.quarantine =
            Some(Quarantine { until_ms: now_ms.saturating_add(length_ms), length_ms });
        length_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each fault of the list led to a quarantine, and of which length.
    fn story(faults_ms: &[u64]) -> Vec<Option<u64>> {
        let mut conduct = Conduct::default();
        let fault = |now_ms: &u64| match conduct.note_fault(*now_ms) {
            Consequence::Quarantined { length_ms } => Some(length_ms),
            Consequence::Noted { .. } => None,
        };
        faults_ms.iter().map(fault).collect()
    }

    #[test]
    fn third_fault_within_ten_seconds_quarantines() {
        assert_eq!(story(&[0, 5_000, 9_999]), [None, None, Some(1_000)]);
        assert_eq!(story(&[0, 5_000, 10_000]), [None, None, None]);
    }

    #[test]
    fn faults_far_apart_never_quarantine() {
        assert_eq!(story(&[0, 6_000, 12_000, 18_000, 24_000]), [None; 5]);
    }

    #[test]
    fn quarantine_lasts_until_its_end() {
        let mut conduct = Conduct::default();
        assert!(!conduct.is_quarantined(0));
        conduct.quarantine(500);
        assert!(conduct.is_quarantined(1_499));
        assert!(!conduct.is_quarantined(1_500));
    }

    #[test]
    fn each_relapse_doubles_up_to_five_minutes() {
        let mut conduct = Conduct::default();
        let (mut now_ms, mut lengths) = (0, vec![conduct.quarantine(0)]);
        for _ in 0..10 {
            now_ms += lengths.last().unwrap();
            match conduct.note_fault(now_ms) {
                Consequence::Quarantined { length_ms } => lengths.push(length_ms),
                noted @ Consequence::Noted { .. } => panic!("{noted:?}"),
            }
        }
        let seconds: Vec<_> = lengths.iter().map(|length| length / 1_000).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn calm_makes_forget() {
        let mut conduct = Conduct::default();
        conduct.quarantine(0);
        // Out at 1,000 and calm for ten seconds: one fault is no relapse any more.
        assert_eq!(conduct.note_fault(11_000), Consequence::Noted { is_first: true });
        assert_eq!(conduct.note_fault(11_001), Consequence::Noted { is_first: false });
        assert_eq!(conduct.note_fault(11_002), Consequence::Quarantined { length_ms: 1_000 });
    }
}
