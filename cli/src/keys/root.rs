//! Roots as their owner changes and signs them.

use std::collections::BTreeMap;

use dunlin_protocol::limits::{MAX_KEYS, MAX_ROOT};
use dunlin_protocol::{PublicKey, Role, RoleKeys, Root, Signature, Signed, write_signed};
use dunlin_trust::{Dalek, Refused, SigningKey, Trust};

use super::Key;
use crate::error::Failure;

/// The keys of a role, and how many of them must sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeySet {
    pub(crate) threshold: u8,
    pub(crate) keys: Vec<Key>,
}

/// What a root says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) number: u32,
    pub(crate) issued_unix_s: u64,
    /// 0: never.
    pub(crate) expires_unix_s: u64,
    /// Roles that this program does not know are passed on.
    pub(crate) roles: BTreeMap<Role, KeySet>,
}

impl Content {
    /// Root 1: one key for each role.
    pub(crate) fn first(root: Key, release: Key, director: Key, now_unix_s: u64) -> Self {
        let one = |key| KeySet { threshold: 1, keys: vec![key] };
        Content {
            number: 1,
            issued_unix_s: now_unix_s,
            expires_unix_s: 0,
            roles: [(Role::Root, one(root)), (Role::Release, one(release)), (Role::Director, one(director))]
                .into(),
        }
    }

    /// The root that follows, with the same keys. It is valid as long from now on as this one was from its beginning.
    pub(crate) fn next(&self, now_unix_s: u64) -> Self {
        let issued_unix_s = now_unix_s.max(self.issued_unix_s);
        let expires_unix_s = match self.expires_unix_s {
            0 => 0,
            expires => issued_unix_s.saturating_add(expires.saturating_sub(self.issued_unix_s).max(1)),
        };
        Content {
            number: self.number.saturating_add(1),
            issued_unix_s,
            expires_unix_s,
            roles: self.roles.clone(),
        }
    }

    /// The keys of a role.
    pub(crate) fn keys(&self, role: Role) -> &[Key] {
        self.roles.get(&role).map_or(&[], |set| &set.keys)
    }

    /// How many of them must sign.
    pub(crate) fn threshold(&self, role: Role) -> usize {
        self.roles.get(&role).map_or(0, |set| set.threshold.into())
    }

    fn set(&mut self, role: Role) -> Result<&mut KeySet, Failure> {
        let missing = || Failure::new(format!("the root has no {} role", role.as_str()));
        self.roles.get_mut(&role).ok_or_else(missing)
    }

    /// Adds a key to a role.
    pub(crate) fn add(&mut self, role: Role, key: Key) -> Result<(), Failure> {
        let set = self.set(role)?;
        if set.keys.contains(&key) {
            return Err(Failure::usage(format!("{} is a {} key already", hex::encode(key), role.as_str())));
        }
        set.keys.push(key);
        Ok(())
    }

    /// Puts a key in the place of another one; of the only one, if none is named.
    pub(crate) fn replace(&mut self, role: Role, old: Option<Key>, new: Key) -> Result<Key, Failure> {
        let name = role.as_str();
        let old = match (old, self.keys(role)) {
            (Some(old), _) => old,
            (None, [only]) => *only,
            (None, _) => {
                let failure = Failure::usage(format!("the {name} role has several keys"));
                return Err(failure.way_out("say which one to replace: --replace KEY"));
            }
        };
        self.add(role, new)?;
        let set = self.set(role)?;
        let before = set.keys.len();
        set.keys.retain(|key| *key != old);
        if set.keys.len() == before {
            return Err(Failure::usage(format!("{} is no {name} key", hex::encode(old))));
        }
        Ok(old)
    }

    /// Takes a key out of every role that it has; which ones these are.
    pub(crate) fn remove(&mut self, key: Key) -> Result<Vec<Role>, Failure> {
        let mut roles = Vec::new();
        for (role, set) in &mut self.roles {
            if set.keys.contains(&key) {
                set.keys.retain(|found| *found != key);
                roles.push(*role);
            }
        }
        if roles.is_empty() {
            let failure =
                Failure::usage(format!("the newest root does not name the key {}", hex::encode(key)));
            return Err(failure.way_out("`dunlin keys show` lists those that it names"));
        }
        Ok(roles)
    }

    /// Changes how many keys of a role must sign.
    pub(crate) fn set_threshold(&mut self, role: Role, threshold: u8) -> Result<(), Failure> {
        self.set(role)?.threshold = threshold;
        Ok(())
    }

    /// Checks that each role can do its work.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        for (role, set) in &self.roles {
            let (name, keys) = (role.as_str(), set.keys.len());
            if keys > MAX_KEYS {
                return Err(Failure::usage(format!(
                    "the {name} role has {keys} keys; at most {MAX_KEYS} fit"
                )));
            }
            if keys == 0 {
                return Err(Failure::usage(format!("it is the only {name} key"))
                    .way_out(format!("replace it: dunlin keys rotate --role {name}")));
            }
            if set.threshold == 0 || usize::from(set.threshold) > keys {
                let needed = set.threshold;
                return Err(Failure::usage(format!("{needed} of {keys} {name} keys cannot sign"))
                    .way_out(format!("a threshold from 1 to {keys}: --threshold N")));
            }
        }
        Ok(())
    }

    fn encode(&self) -> Result<Vec<u8>, Failure> {
        let keys: Vec<Vec<PublicKey>> =
            self.roles.values().map(|set| set.keys.iter().copied().map(PublicKey).collect()).collect();
        let roles: Vec<RoleKeys<'_>> = self
            .roles
            .iter()
            .zip(&keys)
            .map(|((role, set), keys)| RoleKeys {
                role: *role,
                threshold: set.threshold,
                keys: keys.as_slice().into(),
            })
            .collect();
        let root = Root {
            number: self.number,
            issued_unix_s: self.issued_unix_s,
            expires_unix_s: self.expires_unix_s,
            roles: roles.as_slice().into(),
        };
        let mut bytes = vec![0; MAX_ROOT];
        let len = root.encode(&mut bytes).map_err(|error| too_large(&error))?;
        bytes.truncate(len);
        Ok(bytes)
    }
}

fn too_large(error: &impl std::fmt::Display) -> Failure {
    Failure::new(format!("the root cannot be written: {error}"))
}

/// A root and the signatures that it has so far.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SignedRoot {
    content: Content,
    /// What is signed: exactly these bytes.
    bytes: Vec<u8>,
    signatures: Vec<Signature>,
}

impl SignedRoot {
    /// A root that nobody has signed yet.
    pub(crate) fn new(content: Content) -> Result<Self, Failure> {
        content.check()?;
        Ok(SignedRoot { bytes: content.encode()?, content, signatures: Vec::new() })
    }

    /// Reads a root. Its signatures are not checked: see [`SignedRoot::check`].
    pub(crate) fn decode(message: &[u8]) -> Result<Self, Failure> {
        let signed: Signed<'_, Root<'_>> =
            Signed::decode(message).map_err(|error| Failure::new(format!("is no root: {error}")))?;
        let root = signed.message;
        let roles = root.roles.iter().map(|entry| {
            let keys = entry.keys.iter().map(|key| key.0).collect();
            (entry.role, KeySet { threshold: entry.threshold, keys })
        });
        Ok(SignedRoot {
            content: Content {
                number: root.number,
                issued_unix_s: root.issued_unix_s,
                expires_unix_s: root.expires_unix_s,
                roles: roles.collect(),
            },
            bytes: signed.bytes.to_vec(),
            signatures: signed.signatures.iter().collect(),
        })
    }

    /// The root with its signatures, as devices get it.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Failure> {
        let mut message = vec![0; MAX_ROOT];
        let written = write_signed(&self.bytes, self.signatures.as_slice().into(), &mut message);
        message.truncate(written.map_err(|error| too_large(&error))?);
        Ok(message)
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    /// The keys that have signed, as the message says; not checked.
    pub(crate) fn signers(&self) -> Vec<Key> {
        self.signatures.iter().map(|signature| signature.key).collect()
    }

    /// Adds a signature; whether it was not there yet.
    pub(crate) fn sign(&mut self, key: &SigningKey) -> bool {
        let signature = key.sign::<Root<'_>>(&self.bytes);
        let is_new = !self.signatures.contains(&signature);
        if is_new {
            // Another one in this key's name can only be wrong: Ed25519 signs the same bytes the same way.
            self.signatures.retain(|other| other.key != signature.key);
            self.signatures.push(signature);
        }
        is_new
    }

    /// Signs with those of the keys that are needed: as this root demands, and as the one before does.
    pub(crate) fn sign_with(&mut self, previous: Option<&SignedRoot>, keys: &[SigningKey]) {
        let contents: Vec<Content> =
            previous.map(|root| root.content.clone()).into_iter().chain([self.content.clone()]).collect();
        // Those that count twice first.
        let mut keys: Vec<_> = keys.iter().collect();
        let counts = |key: &&SigningKey| {
            contents.iter().filter(|content| content.keys(Role::Root).contains(&key.public())).count()
        };
        keys.sort_by_key(|key| std::cmp::Reverse(counts(key)));
        for key in keys {
            let signers = self.signers();
            let is_needed = contents.iter().any(|content| {
                let of_role = content.keys(Role::Root);
                let valid = of_role.iter().filter(|key| signers.contains(key)).count();
                of_role.contains(&key.public()) && valid < content.threshold(Role::Root)
            });
            if is_needed {
                self.sign(key);
            }
        }
    }

    /// Whether devices that have the root before take this one; without one before, whether it can be pinned.
    pub(crate) fn check(&self, previous: Option<&SignedRoot>) -> Result<(), Failure> {
        let message = self.encode()?;
        let checked = match previous {
            None => Trust::pin(&message, &Dalek).map(|_| ()),
            Some(previous) => {
                Trust::pin(&previous.encode()?, &Dalek).and_then(|mut trust| trust.rotate(&message, &Dalek))
            }
        };
        checked.map_err(|refused| {
            let failure = Failure::new(format!("root {}: {refused}", self.content.number));
            match refused {
                Refused::Signatures { .. } => failure.way_out(
                    "name the folder of the keys with --dir; or write the root with --out FILE, have it signed with \
                     `dunlin keys sign FILE --key KEY.pem`, and `dunlin keys submit FILE`",
                ),
                _ => failure,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> SigningKey {
        SigningKey::from_secret(&[number; 32])
    }

    fn public(number: u8) -> Key {
        key(number).public()
    }

    fn signed(content: Content, previous: Option<&SignedRoot>, keys: &[u8]) -> SignedRoot {
        let mut root = SignedRoot::new(content).expect("usable");
        let keys: Vec<_> = keys.iter().copied().map(key).collect();
        root.sign_with(previous, &keys);
        root
    }

    fn first() -> SignedRoot {
        signed(Content::first(public(1), public(2), public(3), 1_000), None, &[1, 2])
    }

    #[test]
    fn the_first_root_is_signed_by_its_root_key_alone() {
        let root = first();
        root.check(None).expect("devices pin it");
        assert_eq!(root.signers(), [public(1)]);
        assert_eq!(SignedRoot::decode(&root.encode().expect("bytes")).expect("a root"), root);
        let unsigned = signed(root.content().clone(), None, &[2]);
        let failure = unsigned.check(None).expect_err("not signed").line();
        assert!(failure.contains("signed by 0 root keys, needs 1") && failure.contains("--out"), "{failure}");
    }

    #[test]
    fn a_root_key_is_replaced_by_both_signatures() {
        let first = first();
        let mut next = first.content().next(2_000);
        assert_eq!(next.replace(Role::Root, None, public(4)).expect("the only one"), public(1));
        signed(next.clone(), Some(&first), &[1]).check(Some(&first)).expect_err("the new one has not signed");
        signed(next.clone(), Some(&first), &[4]).check(Some(&first)).expect_err("the old one has not signed");
        let second = signed(next, Some(&first), &[4, 2, 1]);
        second.check(Some(&first)).expect("both have");
        assert_eq!(second.signers().len(), 2);
        // Signing again adds nothing, and a wrong signature is replaced.
        let mut again = second.clone();
        assert!(!again.sign(&key(4)));
        again.signatures[0].signature[0] ^= 1;
        let wrong = again.signatures[0].key;
        let by = if wrong == public(4) { 4 } else { 1 };
        again.check(Some(&first)).expect_err("damaged");
        assert!(again.sign(&key(by)));
        again.check(Some(&first)).expect("mended");
    }

    #[test]
    fn thresholds_are_met_with_as_few_signatures_as_possible() {
        let first = first();
        let mut content = first.content().next(2_000);
        content.add(Role::Root, public(4)).expect("new");
        content.add(Role::Root, public(5)).expect("new");
        content.set_threshold(Role::Root, 2).expect("a role");
        let second = signed(content, Some(&first), &[5, 4, 1]);
        second.check(Some(&first)).expect("signed");
        assert_eq!(second.signers(), [public(1), public(5)], "the one that counts twice, and one more");
        // Two of three, on two machines.
        let mut third = signed(second.content().next(3_000), Some(&second), &[4]);
        third.check(Some(&second)).expect_err("one of two");
        third = SignedRoot::decode(&third.encode().expect("bytes")).expect("a root");
        assert!(third.sign(&key(5)));
        third.check(Some(&second)).expect("two of three");
    }

    #[test]
    fn roots_that_could_not_be_used_are_not_made() {
        type Change = dyn Fn(&mut Content) -> Result<(), Failure>;
        let content = first().content().next(2_000);
        let refused = |change: &Change| {
            let mut content = content.clone();
            let made = change(&mut content).and_then(|()| SignedRoot::new(content));
            made.expect_err("refused").line()
        };
        let cases: [(&str, &Change); 7] = [
            ("only release key; replace it", &|root| root.remove(public(2)).map(|_| ())),
            ("does not name the key", &|root| root.remove(public(9)).map(|_| ())),
            ("is a release key already", &|root| root.add(Role::Release, public(2))),
            ("2 of 1 release keys", &|root| root.set_threshold(Role::Release, 2)),
            ("0 of 1 root keys", &|root| root.set_threshold(Role::Root, 0)),
            ("is no root key", &|root| root.replace(Role::Root, Some(public(2)), public(4)).map(|_| ())),
            ("at most 8", &|root| (10..18).try_for_each(|number| root.add(Role::Root, public(number)))),
        ];
        for (why, change) in cases {
            let line = refused(change);
            assert!(line.contains(why), "{line}");
        }
    }

    #[test]
    fn a_root_is_valid_as_long_as_the_one_before_and_never_written_earlier() {
        let mut content = first().content().clone();
        assert_eq!(content.next(500).issued_unix_s, 1_000, "the clock is behind");
        assert_eq!(content.next(2_000).expires_unix_s, 0);
        content.expires_unix_s = 1_600;
        let next = content.next(2_000);
        assert_eq!((next.number, next.issued_unix_s, next.expires_unix_s), (2, 2_000, 2_600));
    }
}
