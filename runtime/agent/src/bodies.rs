//! Bodies of messages: from windows and labels, and two of them into one while they wait.

use std::collections::BTreeMap;

use dunlin_monitor::{FeatureKind, Shape, Window};
use dunlin_protocol::{EncodeError, Label, LabelCount, List, Report, ReportEncoder, Section, UpKind, limits};

/// A window for any model.
type AnyWindow = Window<
    { dunlin_runtime::artifact::limits::MAX_FEATURES },
    { dunlin_runtime::artifact::limits::MAX_COUNTERS },
>;

/// Counts of labels: (predicted class, label, confidence bin).
pub(crate) type Labels = BTreeMap<(u32, u32, u8), u64>;

/// Writes a closed window as the bodies of reports of at most `budget` bytes, envelope included.
pub(crate) fn reports<const FEATURES: usize, const COUNTERS: usize>(
    slot: &str,
    window: &Window<FEATURES, COUNTERS>,
    budget: usize,
) -> Result<Vec<Vec<u8>>, EncodeError> {
    let budget = budget.clamp(limits::MIN_REPORT_BUDGET, limits::MAX_UP_MESSAGE);
    let mut encoder = ReportEncoder::new(slot, window);
    let mut buffer = vec![0; budget - limits::MAX_ENVELOPE];
    let mut bodies = Vec::new();
    while let Some(len) = encoder.next_body(&mut buffer)? {
        bodies.push(buffer.get(..len).unwrap_or_default().to_vec());
    }
    Ok(bodies)
}

/// Writes counts of labels as the bodies of label messages of at most `budget` bytes, envelope included.
pub(crate) fn labels(
    slot: &str,
    model: [u8; 32],
    counts: &Labels,
    budget: usize,
) -> Result<Vec<Vec<u8>>, EncodeError> {
    let budget = budget.clamp(limits::MIN_REPORT_BUDGET, limits::MAX_UP_MESSAGE);
    let entries: Vec<LabelCount> = counts
        .iter()
        .map(|(&(predicted, label, confidence_bin), &count)| LabelCount {
            predicted,
            label,
            confidence_bin,
            count,
        })
        .collect();
    let mut buffer = vec![0; budget - limits::MAX_ENVELOPE];
    let mut bodies = Vec::new();
    let mut rest = entries.as_slice();
    let mut take = limits::MAX_LABELS;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(take.min(rest.len()));
        match (Label { slot, model, entries: List::from(now) }).encode(&mut buffer) {
            Ok(len) => {
                bodies.push(buffer.get(..len).unwrap_or_default().to_vec());
                rest = later;
            }
            Err(EncodeError::Full { .. }) if take > 1 => take = now.len() / 2,
            Err(error) => return Err(error),
        }
    }
    Ok(bodies)
}

/// Merges the bodies of two items of one slot and model, exactly. Nothing if they cannot be: events, and counts that
/// would not fit into their counters.
pub(crate) fn merge(
    kind: UpKind,
    budget: usize,
    older: &[Vec<u8>],
    younger: &[Vec<u8>],
) -> Option<Vec<Vec<u8>>> {
    match kind {
        UpKind::Report => merge_reports(budget, older, younger),
        UpKind::Label => merge_labels(budget, older, younger),
        UpKind::State | UpKind::Event | UpKind::Csr | UpKind::Fetch => None,
    }
}

fn merge_reports(budget: usize, older: &[Vec<u8>], younger: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let decode = |bodies: &[Vec<u8>]| -> Option<()> {
        bodies.iter().all(|body| Report::decode(body).is_ok()).then_some(())
    };
    decode(older)?;
    decode(younger)?;
    let all = || older.iter().chain(younger).filter_map(|body| Report::decode(body).ok());
    let (slot, model) = all().next().map(|report| (report.header().slot, report.header().model))?;
    let shapes = shapes(all().flat_map(|report| report.sections()));
    let window = |bodies: &[Vec<u8>]| -> Option<Box<AnyWindow>> {
        let mut window = Box::new(AnyWindow::new(model, shapes.iter().copied()).ok()?);
        for body in bodies {
            Report::decode(body).ok()?.add_to(&mut *window).ok()?;
        }
        Some(window)
    };
    let (mut merged, other) = (window(older)?, window(younger)?);
    if !merged.fits(&other) {
        return None;
    }
    merged.merge(&other).ok()?;
    reports(slot, &*merged, budget).ok()
}

/// The layout as far as reports tell it: features without counts are not in them, and need no counters here.
fn shapes<'a>(sections: impl Iterator<Item = Section<'a>>) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    for section in sections {
        let (kind, feature, counters) = match section {
            Section::Numeric(section) => (FeatureKind::Numeric, section.feature, section.counters),
            Section::Classes(section) => (FeatureKind::Classes, section.feature, section.counters),
            Section::Categories(section) => (FeatureKind::Categories, section.feature, section.counters),
            _ => continue,
        };
        let feature = usize::from(feature);
        if shapes.len() <= feature {
            shapes.resize(feature + 1, Shape { kind: FeatureKind::Numeric, counters: 0 });
        }
        if let (Some(shape), Ok(counters)) = (shapes.get_mut(feature), u16::try_from(counters)) {
            *shape = Shape { kind, counters };
        }
    }
    shapes
}

fn merge_labels(budget: usize, older: &[Vec<u8>], younger: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let mut counts = Labels::new();
    let mut head = None;
    for body in older.iter().chain(younger) {
        let label = Label::decode(body).ok()?;
        head = Some((label.slot, label.model));
        for entry in label.entries.iter() {
            let count = counts.entry((entry.predicted, entry.label, entry.confidence_bin)).or_default();
            *count += entry.count;
            if *count > limits::MAX_COUNT {
                return None;
            }
        }
    }
    let (slot, model) = head?;
    labels(slot, model, &counts, budget).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHAPES: [Shape; 3] = [
        Shape { kind: FeatureKind::Numeric, counters: 64 },
        Shape { kind: FeatureKind::Classes, counters: 12 },
        Shape { kind: FeatureKind::Numeric, counters: 400 },
    ];

    type Small = Window<3, 476>;

    fn window(counts: &[(usize, usize, u32)], runs: u32) -> Small {
        let mut window = Small::new([3; 32], SHAPES).unwrap();
        window.add_inferences(runs);
        for &(feature, counter, n) in counts {
            let counter = counter % usize::from(SHAPES[feature].counters);
            assert!(window.add_count(feature, counter, n));
            window.record_latency(u64::from(n) * 10);
        }
        let period = dunlin_monitor::Period { start_unix_s: 5, duration_ms: runs, closed_ms: 0, windows: 1 };
        window.set_period(period);
        window
    }

    fn counts() -> impl Strategy<Value = Vec<(usize, usize, u32)>> {
        prop::collection::vec((0..3usize, 0..400usize, 1..2000u32), 0..200)
    }

    proptest! {
        #[test]
        fn merged_reports_say_what_the_merged_window_says(
            a in counts(), b in counts(), runs in 0..1000u32, budget in 256..1500usize,
        ) {
            let (a, b) = (window(&a, runs), window(&b, 7));
            let (older, younger) = (reports("kws", &a, budget).unwrap(), reports("kws", &b, budget).unwrap());
            prop_assert!(older.iter().all(|body| body.len() + limits::MAX_ENVELOPE <= budget));
            let merged = merge(UpKind::Report, budget, &older, &younger).unwrap();
            let mut both = a;
            both.merge(&b).unwrap();
            let mut read = Small::new([3; 32], SHAPES).unwrap();
            for body in &merged {
                Report::decode(body).unwrap().add_to(&mut read).unwrap();
            }
            prop_assert_eq!(read, both);
        }

        #[test]
        fn merged_labels_add(
            a in prop::collection::btree_map((0..20u32, 0..20u32, 0..10u8), 1..100u64, 1..300),
            b in prop::collection::btree_map((0..20u32, 0..20u32, 0..10u8), 1..100u64, 1..300),
        ) {
            let bodies = |counts: &Labels| labels("kws", [1; 32], counts, 512).unwrap();
            let merged = merge(UpKind::Label, 512, &bodies(&a), &bodies(&b)).unwrap();
            let mut sum = a.clone();
            b.iter().for_each(|(key, count)| *sum.entry(*key).or_default() += count);
            let mut read = Labels::new();
            for body in &merged {
                prop_assert!(body.len() <= 512);
                for entry in Label::decode(body).unwrap().entries.iter() {
                    *read.entry((entry.predicted, entry.label, entry.confidence_bin)).or_default() += entry.count;
                }
            }
            prop_assert_eq!(read, sum);
        }
    }

    #[test]
    fn counters_at_their_end_are_not_merged() {
        let full = window(&[(1, 1, u32::MAX)], 1);
        let bodies = reports("kws", &full, 1024).unwrap();
        assert_eq!(merge(UpKind::Report, 1024, &bodies, &bodies), None);
        assert_eq!(merge(UpKind::Event, 1024, &[vec![1]], &[vec![2]]), None);
        assert_eq!(merge(UpKind::Report, 1024, &bodies, &[vec![0xFF; 3]]), None);
    }
}
