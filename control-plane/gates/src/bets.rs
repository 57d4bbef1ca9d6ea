//! Wealth from bets on a mean.

/// Bets of different boldness are made at the same time, with equal stakes.
const BETS: usize = 399;
/// The boldest bet is best for a mean of so many times the hypothesis', or for the largest there is. With 30 the test
/// against a rate of 1 % needs a fifth more devices to see 5 %, and with 8 as many more to see 30 %.
const FARTHEST: f64 = 12.0;

/// On which side of the hypothesis the mean is believed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Evidence against "the mean is at most this".
    Above,
    /// Evidence against "the mean is at least this".
    Below,
}

/// Evidence that the mean of values between 0 and 1 lies above or below `mean`.
///
/// Each bet puts a part `c` of its wealth on the next value `y`: the wealth is multiplied by `1 - c + c * y / mean`, whose
/// expectation is at most 1 when the mean is at most `mean`. For values that are 0 or 1 that is the likelihood ratio of
/// the rate `mean + c * (1 - mean)` to `mean`.
#[derive(Clone, Debug)]
pub struct Bets {
    side: Side,
    /// On the chosen side.
    mean: f64,
    /// The logarithm of each bet's wealth.
    wealth: Vec<f64>,
}

impl Bets {
    /// Nothing is known yet. `mean` is between 0 and 1, both excluded; values outside are moved just inside.
    pub fn new(side: Side, mean: f64) -> Self {
        let mean = mean.clamp(f64::EPSILON, 1.0 - f64::EPSILON);
        let mean = if side == Side::Above { mean } else { 1.0 - mean };
        Bets { side, mean, wealth: vec![0.0; BETS] }
    }

    fn stake(&self, bet: usize) -> f64 {
        let boldest = ((FARTHEST - 1.0) * self.mean / (1.0 - self.mean)).min(1.0);
        boldest * (bet + 1) as f64 / BETS as f64
    }

    /// Takes the same value several times. Values outside of 0 to 1 are moved inside.
    pub fn observe(&mut self, value: f64, times: u64) {
        if times == 0 || value.is_nan() {
            return;
        }
        let value = value.clamp(0.0, 1.0);
        let value = if self.side == Side::Above { value } else { 1.0 - value };
        for bet in 0..BETS {
            let stake = self.stake(bet);
            if let Some(wealth) = self.wealth.get_mut(bet) {
                *wealth += times as f64 * libm::log(1.0 - stake + stake * value / self.mean);
            }
        }
    }

    /// The natural logarithm of the e-value.
    pub fn log_e(&self) -> f64 {
        let most = self.wealth.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if most == f64::NEG_INFINITY {
            return most;
        }
        let sum: f64 = self.wealth.iter().map(|wealth| libm::exp(wealth - most)).sum();
        most + libm::log(sum / BETS as f64)
    }

    /// The e-value: at least 1 / alpha with a probability of at most alpha, ever, when the hypothesis is true.
    pub fn e(&self) -> f64 {
        libm::exp(self.log_e())
    }

    /// How fast the logarithm of the best bet's wealth grows per value, when values are 1 with this probability and 0
    /// otherwise; 0 when no bet wins.
    pub fn growth(&self, rate: f64) -> f64 {
        let rate = rate.clamp(0.0, 1.0);
        let rate = if self.side == Side::Above { rate } else { 1.0 - rate };
        let growth = |stake: f64| {
            let won = if rate > 0.0 { rate * libm::log(1.0 - stake + stake / self.mean) } else { 0.0 };
            let lost = if rate < 1.0 { (1.0 - rate) * libm::log(1.0 - stake) } else { 0.0 };
            won + lost
        };
        (0..BETS).map(|bet| growth(self.stake(bet))).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_rates_it_is_a_mixture_of_likelihood_ratios() {
        let (base, failures, devices) = (0.01, 5, 90);
        let mut bets = Bets::new(Side::Above, base);
        bets.observe(1.0, failures);
        bets.observe(0.0, devices - failures);
        let ratio = |rate: f64| {
            let (k, n) = (failures as i32, devices as i32);
            (rate / base).powi(k) * ((1.0 - rate) / (1.0 - base)).powi(n - k)
        };
        let rates = (1..=BETS).map(|step| base + (FARTHEST * base - base) * step as f64 / BETS as f64);
        let mixture = rates.map(ratio).sum::<f64>() / BETS as f64;
        assert!((bets.e() / mixture - 1.0).abs() < 1e-9, "{} {mixture}", bets.e());
    }

    #[test]
    fn the_expectation_of_the_next_e_value_is_never_larger_under_the_hypothesis() {
        for mean in [0.001, 0.01, 0.3, 0.5, 0.97] {
            for side in [Side::Above, Side::Below] {
                let mut bets = Bets::new(side, mean);
                for value in [0.0, 1.0, 0.0, 0.4] {
                    let next = |value: f64| {
                        let mut bets = bets.clone();
                        bets.observe(value, 1);
                        bets.e()
                    };
                    let expected = mean * next(1.0) + (1.0 - mean) * next(0.0);
                    assert!((expected / bets.e() - 1.0).abs() < 1e-9, "fair at the boundary");
                    let other = if side == Side::Above { mean * 0.5 } else { 0.5 + mean * 0.5 };
                    let inside = other * next(1.0) + (1.0 - other) * next(0.0);
                    assert!(inside <= bets.e() * (1.0 + 1e-9), "not favourable inside");
                    bets.observe(value, 1);
                }
            }
        }
    }

    #[test]
    fn impossible_values_do_no_harm() {
        let mut bets = Bets::new(Side::Above, 0.0);
        for value in [f64::NAN, f64::INFINITY, -1.0, 2.0] {
            bets.observe(value, u64::MAX);
        }
        assert!(!bets.e().is_nan());
    }
}
