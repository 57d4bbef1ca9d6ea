//! How well predictions agree with labels.

use std::collections::BTreeSet;

use serde::Serialize;

/// Which class was taken for which.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Confusion {
    /// The classes that occur as a label or as a prediction, ascending.
    pub(crate) classes: Vec<usize>,
    /// `counts[i][j]`: how often class `classes[i]` was taken for class `classes[j]`.
    pub(crate) counts: Vec<Vec<usize>>,
}

impl Confusion {
    /// Counts pairs of label and prediction.
    pub(crate) fn of(pairs: &[(usize, usize)]) -> Self {
        let classes: BTreeSet<usize> =
            pairs.iter().flat_map(|&(label, predicted)| [label, predicted]).collect();
        let classes: Vec<usize> = classes.into_iter().collect();
        let mut counts = vec![vec![0; classes.len()]; classes.len()];
        for (label, predicted) in pairs {
            if let (Ok(i), Ok(j)) = (classes.binary_search(label), classes.binary_search(predicted)) {
                counts[i][j] += 1;
            }
        }
        Confusion { classes, counts }
    }

    /// Pairs on the diagonal.
    pub(crate) fn correct(&self) -> usize {
        (0..self.classes.len()).map(|i| self.counts[i][i]).sum()
    }
}

/// The index of the largest value; the first one of several. NaN is never the largest.
pub(crate) fn argmax(values: impl IntoIterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (index, value) in values.into_iter().enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

/// The area under the ROC curve: the chance that a positive sample scores higher than a negative one, ties
/// counting half (the Mann-Whitney statistic). `None` when one of the classes is missing.
pub(crate) fn auc(scores: &[(f64, bool)]) -> Option<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = sorted.iter().filter(|(_, positive)| *positive).count();
    let negatives = sorted.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let (mut wins, mut below) = (0.0, 0);
    for tied in sorted.chunk_by(|a, b| a.0 == b.0) {
        let positive = tied.iter().filter(|(_, positive)| *positive).count();
        let negative = tied.len() - positive;
        wins += positive as f64 * (below as f64 + negative as f64 / 2.0);
        below += negative;
    }
    Some(wins / (positives as f64 * negatives as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn confusion_lists_only_classes_that_occur() {
        let confusion = Confusion::of(&[(7, 7), (7, 2), (900, 900)]);
        assert_eq!(confusion.classes, [2, 7, 900]);
        assert_eq!(confusion.counts, [[0, 0, 0], [1, 1, 0], [0, 0, 1]]);
        assert_eq!(confusion.correct(), 2);
    }

    #[test]
    fn the_first_of_equal_values_is_the_largest() {
        assert_eq!(argmax([1.0, 5.0, 5.0]), 1);
        assert_eq!(argmax([f64::NAN, -3.0]), 1);
        assert_eq!(argmax([f64::NAN]), 0);
    }

    #[test]
    fn auc_of_simple_rankings() {
        assert_eq!(auc(&[(0.1, false), (0.9, true)]), Some(1.0));
        assert_eq!(auc(&[(0.9, false), (0.1, true)]), Some(0.0));
        assert_eq!(auc(&[(0.5, false), (0.5, true)]), Some(0.5));
        assert_eq!(auc(&[(0.5, true)]), None);
    }

    proptest! {
        #[test]
        fn auc_is_the_share_of_ordered_pairs(scores in proptest::collection::vec((0u8..6, any::<bool>()), 0..30)) {
            let scores: Vec<(f64, bool)> = scores.into_iter().map(|(s, p)| (f64::from(s), p)).collect();
            let (mut wins, mut pairs) = (0.0, 0.0);
            for positive in scores.iter().filter(|s| s.1) {
                for negative in scores.iter().filter(|s| !s.1) {
                    pairs += 1.0;
                    wins += if positive.0 > negative.0 { 1.0 } else if positive.0 == negative.0 { 0.5 } else { 0.0 };
                }
            }
            match auc(&scores) {
                None => prop_assert_eq!(pairs, 0.0),
                Some(value) => prop_assert!((value - wins / pairs).abs() < 1e-12),
            }
        }
    }
}
