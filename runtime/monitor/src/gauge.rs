//! Readings of the device itself.

/// What a gauge measures. The numbers are part of the protocol and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GaugeKind {
    /// Charge of the battery, in thousandths of a percent.
    Battery = 0,
    /// Temperature, in thousandths of a degree Celsius.
    Temperature = 1,
}

impl GaugeKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [GaugeKind; 2] = [GaugeKind::Battery, GaugeKind::Temperature];

    /// The kind's number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this number.
    pub const fn from_code(code: u8) -> Option<Self> {
        if (code as usize) < Self::ALL.len() { Some(Self::ALL[code as usize]) } else { None }
    }

    /// The name used in tables and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            GaugeKind::Battery => "battery",
            GaugeKind::Temperature => "temperature",
        }
    }
}

/// Readings of one kind: how many, the smallest, the largest, and their sum, in thousandths of the kind's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge {
    /// Number of readings.
    pub n: u32,
    /// The smallest reading; `i32::MAX` when there is none.
    pub min: i32,
    /// The largest reading; `i32::MIN` when there is none.
    pub max: i32,
    /// The sum of the readings. Cannot overflow as long as `n` counts them.
    pub sum: i64,
}

impl Gauge {
    /// No reading.
    pub const EMPTY: Gauge = Gauge { n: 0, min: i32::MAX, max: i32::MIN, sum: 0 };

    /// One reading.
    pub const fn of(reading: i32) -> Self {
        Gauge { n: 1, min: reading, max: reading, sum: reading as i64 }
    }

    pub(crate) fn add(&mut self, other: &Gauge, saturated: &mut bool) {
        crate::counter::add(&mut self.n, other.n, saturated);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum = self.sum.saturating_add(other.sum);
    }
}

/// A high-water mark of memory. The numbers are part of the protocol and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mark {
    /// Bytes of arena.
    Arena = 0,
    /// Bytes of stack.
    Stack = 1,
}

impl Mark {
    /// All marks, in the order of their numbers.
    pub const ALL: [Mark; 2] = [Mark::Arena, Mark::Stack];

    /// The mark's number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The mark with this number.
    pub const fn from_code(code: u8) -> Option<Self> {
        if (code as usize) < Self::ALL.len() { Some(Self::ALL[code as usize]) } else { None }
    }

    /// The name used in tables and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Mark::Arena => "arena",
            Mark::Stack => "stack",
        }
    }
}
