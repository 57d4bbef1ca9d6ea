//! Several gates together.

/// The evidence of several gates against all of their hypotheses together: the mean of e-values is an e-value, whatever
/// their dependence. Gates that look at one rollout share its alpha by that. 1 without any.
pub fn average(e_values: &[f64]) -> f64 {
    match e_values.len() {
        0 => 1.0,
        count => e_values.iter().sum::<f64>() / count as f64,
    }
}

/// Which of the hypotheses are refuted such that at most a part `alpha` of those is expected to be true: the e-BH
/// procedure. The indices, in ascending order.
pub fn discoveries(e_values: &[f64], alpha: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..e_values.len()).collect();
    let e = |index: usize| e_values.get(index).copied().filter(|e| !e.is_nan()).unwrap_or(0.0);
    order.sort_by(|one, other| e(*other).total_cmp(&e(*one)));
    let enough = |rank: usize, index: usize| e(index) * rank as f64 >= e_values.len() as f64 / alpha;
    let found =
        (1..=order.len()).rev().find(|rank| order.get(rank - 1).is_some_and(|index| enough(*rank, *index)));
    order.truncate(found.unwrap_or(0));
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e_values_are_averaged() {
        assert!((average(&[]) - 1.0).abs() < 1e-12);
        assert!((average(&[40.0, 0.0]) - 20.0).abs() < 1e-12);
    }

    #[test]
    fn the_largest_set_that_its_evidence_carries_is_found() {
        // With four hypotheses and alpha 0.1: one needs 40, two need 20 each, three 13.4.
        assert_eq!(discoveries(&[39.0, 1.0, 1.0, 1.0], 0.1), [] as [usize; 0]);
        assert_eq!(discoveries(&[1.0, 40.0, 1.0, 1.0], 0.1), [1]);
        assert_eq!(discoveries(&[20.0, 1.0, 1.0, 30.0], 0.1), [0, 3]);
        assert_eq!(discoveries(&[14.0, 14.0, 14.0, f64::NAN], 0.1), [0, 1, 2]);
        assert_eq!(discoveries(&[], 0.1), [] as [usize; 0]);
    }
}
