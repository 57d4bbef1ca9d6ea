//! What a device remembers, and what it believes because of it.

use dunlin_protocol::{Desired, DesiredSlot, Release, Role, Root, Signed};
use heapless::Vec;
use sha2::{Digest as _, Sha256};

use crate::Refused;
use crate::keys::{Keys, Verifier};

/// Most models whose floors a device remembers.
pub const MAX_FLOORS: usize = 32;

/// What the device knows about the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// It has no clock, or its clock has not been set.
    Unknown,
    /// Seconds since 1970 UTC.
    UnixS(u64),
}

/// What a device remembers: the newest root, how far assignments have come, and the models' floors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    pub(crate) root: u32,
    pub(crate) root_expires_unix_s: u64,
    pub(crate) root_keys: Keys,
    pub(crate) release_keys: Keys,
    pub(crate) director_keys: Keys,
    /// The newest assignment's generation and time of writing.
    pub(crate) generation: u64,
    pub(crate) assigned_unix_s: u64,
    /// The latest time at which the root or an assignment that was believed was written: it is at least that late.
    pub(crate) latest_unix_s: u64,
    /// Lowest versions by model.
    pub(crate) floors: Vec<([u8; 8], u32), MAX_FLOORS>,
}

/// An assignment that is believed. The artifacts in it are checked one by one: [`Trust::release`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assigned<'a> {
    /// What the device should run.
    pub desired: Desired<'a>,
    /// It says the same as the newest one that the device knows.
    pub is_known: bool,
}

impl Trust {
    /// Begins with a root that is believed because of where it comes from: built into the firmware, or received
    /// when the device was enrolled. Any number will do. It must be signed as it demands itself.
    ///
    /// # Errors
    /// [`Refused`] when it is malformed or not signed by itself.
    pub fn pin(root: &[u8], verifier: &impl Verifier) -> Result<Self, Refused> {
        let signed: Signed<'_, Root<'_>> = Signed::decode(root)?;
        let new = Self::of(&signed.message)?;
        new.root_keys.check(Role::Root, &signed, verifier)?;
        Ok(new)
    }

    fn of(root: &Root<'_>) -> Result<Self, Refused> {
        Ok(Self {
            root: root.number,
            root_expires_unix_s: root.expires_unix_s,
            root_keys: Keys::of(Role::Root, &root.roles)?,
            release_keys: Keys::of(Role::Release, &root.roles)?,
            director_keys: Keys::of(Role::Director, &root.roles)?,
            generation: 0,
            assigned_unix_s: 0,
            latest_unix_s: root.issued_unix_s,
            floors: Vec::new(),
        })
    }

    /// The number of the root that the device has.
    pub fn root(&self) -> u32 {
        self.root
    }

    /// The generation of the newest assignment that was kept; 0 when there is none.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Replaces the root by the one that follows it.
    ///
    /// A root that has expired is taken all the same, as another may follow it; but nothing is installed until one
    /// comes that has not. When all keys of a role are replaced, what was remembered because of the old ones is
    /// forgotten (floors; generation and time): the way back after a stolen key was used to make them absurd.
    ///
    /// # Errors
    /// [`Refused`]; the device keeps the root it has.
    pub fn rotate(&mut self, root: &[u8], verifier: &impl Verifier) -> Result<(), Refused> {
        let signed: Signed<'_, Root<'_>> = Signed::decode(root)?;
        let expected = self.root.saturating_add(1);
        if signed.message.number != expected || expected == self.root {
            return Err(Refused::RootNumber { expected, found: signed.message.number });
        }
        let new = Self::of(&signed.message)?;
        self.root_keys.check(Role::Root, &signed, verifier)?;
        new.root_keys.check(Role::Root, &signed, verifier)?;
        // A key that stays could have signed an older assignment or release, which must not come back.
        if new.director_keys.is_disjoint(&self.director_keys) {
            (self.generation, self.assigned_unix_s, self.latest_unix_s) = (0, 0, 0);
        }
        if new.release_keys.is_disjoint(&self.release_keys) {
            self.floors.clear();
        }
        self.latest_unix_s = self.latest_unix_s.max(new.latest_unix_s);
        self.root = new.root;
        self.root_expires_unix_s = new.root_expires_unix_s;
        self.root_keys = new.root_keys;
        self.release_keys = new.release_keys;
        self.director_keys = new.director_keys;
        Ok(())
    }

    /// Reads a desired state and decides whether to believe it.
    ///
    /// Nothing is remembered yet: see [`Trust::keep`].
    ///
    /// # Errors
    /// [`Refused`]. After [`Refused::RootMissing`] the device asks for the roots that it lacks and tries again.
    pub fn assignment<'a>(
        &self,
        message: &'a [u8],
        device: &str,
        now: Time,
        verifier: &impl Verifier,
    ) -> Result<Assigned<'a>, Refused> {
        let signed: Signed<'_, Desired<'_>> = Signed::decode(message)?;
        let desired = signed.message;
        self.director_keys.check(Role::Director, &signed, verifier).map_err(|refused| {
            // Its keys may be in a root that the device does not have yet. Nobody is believed because of that: it
            // only makes the device ask.
            if desired.root > self.root {
                Refused::RootMissing { known: self.root, needed: desired.root }
            } else {
                refused
            }
        })?;
        if desired.root > self.root {
            return Err(Refused::RootMissing { known: self.root, needed: desired.root });
        }
        if desired.device != device {
            return Err(Refused::Device);
        }
        let (found, known) = (desired.generation, self.generation);
        if (found, desired.issued_unix_s) < (known, self.assigned_unix_s) {
            return Err(Refused::Older { known, found });
        }
        self.not_expired("root", self.root_expires_unix_s, now)?;
        self.not_expired("assignment", desired.expires_unix_s, now)?;
        let is_known = (found, desired.issued_unix_s) == (known, self.assigned_unix_s);
        Ok(Assigned { desired, is_known })
    }

    /// Remembers an assignment, so that no older one is believed any more. To be stored before anything in it is
    /// acted upon.
    pub fn keep(&mut self, assigned: &Assigned<'_>) {
        self.generation = assigned.desired.generation;
        self.assigned_unix_s = assigned.desired.issued_unix_s;
        self.latest_unix_s = self.latest_unix_s.max(assigned.desired.issued_unix_s);
    }

    /// Decides whether the artifact that an assignment names for a slot may be installed: the release keys must
    /// have said the same about it. The floor that the release states is remembered; to be stored before the
    /// artifact is used.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn release<'a>(
        &mut self,
        slot: &DesiredSlot<'a>,
        hardware: &str,
        now: Time,
        verifier: &impl Verifier,
    ) -> Result<Release<'a>, Refused> {
        if slot.release.is_empty() {
            return Err(Refused::NoRelease);
        }
        let signed: Signed<'_, Release<'_>> = Signed::decode(slot.release)?;
        self.release_keys.check(Role::Release, &signed, verifier)?;
        let release = signed.message;
        for (field, is_same) in [
            ("model", release.model == slot.name),
            ("version", release.version == slot.version),
            ("digest", release.digest == slot.model),
            ("size", release.size == slot.size),
        ] {
            if !is_same {
                return Err(Refused::Mismatch { field });
            }
        }
        self.not_expired("root", self.root_expires_unix_s, now)?;
        self.not_expired("release", release.expires_unix_s, now)?;
        if !release.hardware.is_empty() && !release.hardware.iter().any(|class| class.0 == hardware) {
            return Err(Refused::Hardware);
        }
        let key = model_key(release.model);
        let known = self.floors.iter().position(|(model, _)| *model == key);
        let floor = known.and_then(|index| self.floors.get(index)).map_or(0, |(_, floor)| *floor);
        if release.version < floor.max(release.floor) {
            return Err(Refused::Withdrawn { floor: floor.max(release.floor), version: release.version });
        }
        match known.and_then(|index| self.floors.get_mut(index)) {
            Some((_, floor)) => *floor = release.floor.max(*floor),
            None if release.floor > 0 => {
                self.floors.push((key, release.floor)).map_err(|_| Refused::Full)?;
            }
            None => {}
        }
        Ok(release)
    }

    /// The device's clock may lag or have been set back: it is at least as late as what was believed last.
    fn not_expired(&self, what: &'static str, at_unix_s: u64, now: Time) -> Result<(), Refused> {
        let now = match now {
            Time::Unknown => self.latest_unix_s,
            Time::UnixS(now) => now.max(self.latest_unix_s),
        };
        if at_unix_s != 0 && now > at_unix_s { Err(Refused::Expired { what, at_unix_s }) } else { Ok(()) }
    }
}

/// Stands for a model's name.
fn model_key(name: &str) -> [u8; 8] {
    let hash: [u8; 32] = Sha256::digest(name).into();
    hash.first_chunk().copied().unwrap_or_default()
}
