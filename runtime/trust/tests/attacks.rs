//! What attackers try, and the reason that each of them is told. Named after the attacks of TUF's specification
//! (section 1.5.2) and after faults that other implementations had.

mod support;

use dunlin_protocol::{
    DecodeError, Desired, Name, PublicKey, Release, Role, RoleKeys, Root, Signature, Signed, write_signed,
};
use dunlin_trust::{Dalek, MAX_FLOORS, Refused, Time, Trust};
use support::{Authority, DAY, DEVICE, FIRST, HARDWARE, NOW, assignment, desired, key, root, version};

const AT: Time = Time::UnixS(NOW);

fn pinned(authority: &Authority) -> Trust {
    Trust::pin(&authority.root(authority.root.0), &Dalek).unwrap()
}

/// Takes the assignment of a version as a device does; `Ok` when it may be installed.
fn install(trust: &mut Trust, message: &[u8], now: Time) -> Result<u32, Refused> {
    let assigned = trust.assignment(message, DEVICE, now, &Dalek)?;
    trust.keep(&assigned);
    let slot = assigned.desired.slots.iter().next().unwrap();
    trust.release(&slot, HARDWARE, now, &Dalek).map(|release| release.version)
}

/// The assignment of version `number` under a generation, all signed as [`FIRST`] demands.
fn assign(generation: u64, number: u32) -> Vec<u8> {
    let release = version(number).release(&[2]);
    assignment(&desired(generation, &[version(number).slot(&release)]), &[3])
}

fn lacks(role: Role, valid: u8, threshold: u8) -> Refused {
    Refused::Signatures { role, valid, threshold }
}

#[test]
fn what_both_parties_say_is_installed_and_an_older_version_comes_back_by_a_higher_assignment() {
    let mut trust = pinned(&FIRST);
    assert_eq!(install(&mut trust, &assign(1, 7), AT), Ok(7));
    assert_eq!(install(&mut trust, &assign(2, 8), AT), Ok(8));
    assert_eq!(install(&mut trust, &assign(3, 7), AT), Ok(7));
    assert_eq!(trust.generation(), 3);
    // The same message again, as a broker that retains it delivers it.
    let again = assign(3, 7);
    let assigned = trust.assignment(&again, DEVICE, AT, &Dalek).unwrap();
    assert!(assigned.is_known);
}

#[test]
fn arbitrary_software() {
    let mut trust = pinned(&FIRST);
    let (good, forged) = (version(7).release(&[2]), version(7).release(&[9]));
    let slots = [version(7).slot(&good)];
    // Nobody signs; a stranger signs; the release key signs what the director must.
    for signers in [&[][..], &[9], &[2], &[1]] {
        let message = assignment(&desired(1, &slots), signers);
        assert_eq!(install(&mut trust, &message, AT), Err(lacks(Role::Director, 0, 1)));
    }
    // The director alone: no release, or one of a stranger, of its own or of the root key.
    let message = assignment(&desired(1, &[version(7).slot(&[])]), &[3]);
    assert_eq!(install(&mut trust, &message, AT), Err(Refused::NoRelease));
    for release in [forged, version(7).release(&[3]), version(7).release(&[1]), version(7).release(&[])] {
        let message = assignment(&desired(1, &[version(7).slot(&release)]), &[3]);
        assert_eq!(install(&mut trust, &message, AT), Err(lacks(Role::Release, 0, 1)));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let trust = pinned(&FIRST);
    let message = assign(1, 7);
    let root = Authority { number: 2, ..FIRST }.root(&[1]);
    for bit in 0..8 * message.len() {
        let mut wrong = message.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let mut trust = trust.clone();
        assert!(install(&mut trust, &wrong, AT).is_err(), "bit {bit}");
    }
    for bit in 0..8 * root.len() {
        let mut wrong = root.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(trust.clone().rotate(&wrong, &Dalek).is_err(), "bit {bit}");
    }
    for short in 0..message.len() {
        assert!(trust.assignment(&message[..short], DEVICE, AT, &Dalek).is_err(), "{short} bytes");
    }
}

#[test]
fn a_signature_on_one_kind_of_message_is_worth_nothing_on_another() {
    // One key in all roles, as a careless owner has it.
    let one = Authority { root: (&[1], 1), release: (&[1], 1), director: (&[1], 1), ..FIRST };
    let trust = pinned(&one);
    let root = one.root(&[1]);
    let signed: Signed<'_, Root<'_>> = Signed::decode(&root).unwrap();
    let empty = [];
    let mut bytes = vec![0; 4096];
    let len = desired(1, &empty).encode(&mut bytes).unwrap();
    bytes.truncate(len);
    // The right key, the right bytes, signed as a release.
    let signature = key(1).sign::<Release<'_>>(&bytes);
    let borrowed = signed.signatures.iter().next().unwrap();
    for signature in [signature, borrowed] {
        let mut message = vec![0; 4096];
        let len = write_signed(&bytes, (&[signature]).into(), &mut message).unwrap();
        let refused = trust.assignment(&message[..len], DEVICE, AT, &Dalek);
        assert_eq!(refused, Err(lacks(Role::Director, 0, 1)));
    }
}

#[test]
fn a_threshold_counts_different_keys() {
    let two = Authority { release: (&[2, 4, 5], 2), director: (&[3, 6], 2), root: (&[1, 7], 2), ..FIRST };
    let mut trust = pinned(&two);
    let enough = version(7).release(&[4, 5]);
    let slots = [version(7).slot(&enough)];
    for (signers, valid) in [(&[3][..], 1), (&[3, 3], 1), (&[3, 9], 1), (&[9, 9], 0)] {
        let message = assignment(&desired(1, &slots), signers);
        assert_eq!(install(&mut trust, &message, AT), Err(lacks(Role::Director, valid, 2)));
    }
    for (signers, valid) in [(&[2][..], 1), (&[2, 2, 2], 1), (&[2, 3], 1), (&[], 0)] {
        let release = version(7).release(signers);
        let message = assignment(&desired(1, &[version(7).slot(&release)]), &[3, 6]);
        assert_eq!(install(&mut trust, &message, AT), Err(lacks(Role::Release, valid, 2)));
    }
    let message = assignment(&desired(1, &slots), &[9, 6, 3]);
    assert_eq!(install(&mut trust, &message, AT), Ok(7));
    // A key that is listed twice is one key: the threshold cannot be met.
    let doubled = Authority { release: (&[2, 2], 2), ..FIRST };
    assert_eq!(Trust::pin(&doubled.root(&[1]), &Dalek), Err(Refused::Roles { role: Role::Release }));
    // A bad signature of a key does not hide its good one.
    let mut bytes = vec![0; 4096];
    let len = desired(2, &slots).encode(&mut bytes).unwrap();
    bytes.truncate(len);
    let good = [3, 6].map(|number| key(number).sign::<Desired<'_>>(&bytes));
    let bad = Signature { signature: [0; 64], ..good[0] };
    let mut message = vec![0; 4096];
    let len = write_signed(&bytes, (&[bad, good[0], good[1]]).into(), &mut message).unwrap();
    assert_eq!(install(&mut trust, &message[..len], AT), Ok(7));
}

#[test]
fn rollback_and_replay() {
    let mut trust = pinned(&FIRST);
    let (old, new) = (assign(4, 7), assign(5, 8));
    assert_eq!(install(&mut trust, &old, AT), Ok(7));
    assert_eq!(install(&mut trust, &new, AT), Ok(8));
    assert_eq!(install(&mut trust, &old, AT), Err(Refused::Older { known: 5, found: 4 }));
    // What was renewed under the same generation replaces the older text, and not the other way round.
    let release = version(8).release(&[2]);
    let slots = [version(8).slot(&release)];
    let renewed = Desired { issued_unix_s: NOW + DAY, expires_unix_s: NOW + 2 * DAY, ..desired(5, &slots) };
    assert_eq!(install(&mut trust, &assignment(&renewed, &[3]), AT), Ok(8));
    assert_eq!(install(&mut trust, &new, AT), Err(Refused::Older { known: 5, found: 5 }));
    // A restart forgets nothing.
    let mut trust = Trust::decode(&trust.encode()).unwrap();
    assert_eq!(install(&mut trust, &old, AT), Err(Refused::Older { known: 5, found: 4 }));
}

#[test]
fn withdrawn_versions() {
    let mut trust = pinned(&FIRST);
    assert_eq!(install(&mut trust, &assign(1, 7), AT), Ok(7));
    // Version 9 says that nothing below 8 is safe. From then on the director cannot bring 7 back.
    let release = support::Version { floor: 8, ..version(9) }.release(&[2]);
    let message = assignment(&desired(2, &[version(9).slot(&release)]), &[3]);
    assert_eq!(install(&mut trust, &message, AT), Ok(9));
    let withdrawn = Refused::Withdrawn { floor: 8, version: 7 };
    assert_eq!(install(&mut trust, &assign(3, 7), AT), Err(withdrawn));
    assert_eq!(install(&mut Trust::decode(&trust.encode()).unwrap(), &assign(4, 7), AT), Err(withdrawn));
    assert_eq!(install(&mut trust, &assign(5, 8), AT), Ok(8));
}

#[test]
fn freeze() {
    let mut trust = pinned(&FIRST);
    let message = assign(1, 7);
    let expires = NOW + 1 + DAY;
    let expired = Err(Refused::Expired { what: "assignment", at_unix_s: expires });
    assert_eq!(install(&mut trust, &message, Time::UnixS(expires)), Ok(7));
    assert_eq!(install(&mut trust, &message, Time::UnixS(expires + 1)), expired);
    // A device without a clock, or whose clock was set back, knows at least when the last thing it believed was written.
    let later = Desired { issued_unix_s: expires + 5, expires_unix_s: 0, ..desired(2, &[]) };
    let later = assignment(&later, &[3]);
    let assigned = trust.assignment(&later, DEVICE, Time::Unknown, &Dalek).unwrap();
    trust.keep(&assigned);
    let short = Desired { issued_unix_s: expires + 6, expires_unix_s: expires, ..desired(3, &[]) };
    let short = assignment(&short, &[3]);
    for now in [Time::Unknown, Time::UnixS(0), Time::UnixS(NOW)] {
        let refused = trust.assignment(&short, DEVICE, now, &Dalek);
        assert_eq!(refused, Err(Refused::Expired { what: "assignment", at_unix_s: expires }));
    }
    // Releases expire too, and so does a root.
    let release = support::Version { expires: NOW - 1, ..version(7) }.release(&[2]);
    let message = assignment(&desired(9, &[version(7).slot(&release)]), &[3]);
    let refused = Err(Refused::Expired { what: "release", at_unix_s: NOW - 1 });
    assert_eq!(install(&mut pinned(&FIRST), &message, AT), refused);
    let old_root = Authority { expires: NOW - 1, ..FIRST };
    let refused = Err(Refused::Expired { what: "root", at_unix_s: NOW - 1 });
    assert_eq!(install(&mut pinned(&old_root), &assign(1, 7), AT), refused);
}

#[test]
fn mix_and_match() {
    let mut trust = pinned(&FIRST);
    let release = version(7).release(&[2]);
    let slot = version(7).slot(&release);
    let mixed = [
        ("model", dunlin_protocol::DesiredSlot { name: "ad", ..slot }),
        ("version", dunlin_protocol::DesiredSlot { version: 8, ..slot }),
        ("digest", dunlin_protocol::DesiredSlot { model: [8; 32], ..slot }),
        ("size", dunlin_protocol::DesiredSlot { size: u32::MAX, ..slot }),
    ];
    for (generation, (field, slot)) in (1..).zip(mixed) {
        let message = assignment(&desired(generation, &[slot]), &[3]);
        assert_eq!(install(&mut trust, &message, AT), Err(Refused::Mismatch { field }));
    }
    let only_m7 = support::Version { hardware: &[Name("cortex-m7"), Name("x86_64")], ..version(7) };
    let release = only_m7.release(&[2]);
    let message = assignment(&desired(5, &[version(7).slot(&release)]), &[3]);
    assert_eq!(install(&mut trust, &message, AT), Err(Refused::Hardware));
    let both = support::Version { hardware: &[Name("cortex-m7"), Name(HARDWARE)], ..version(7) };
    let release = both.release(&[2]);
    let message = assignment(&desired(6, &[version(7).slot(&release)]), &[3]);
    assert_eq!(install(&mut trust, &message, AT), Ok(7));
}

#[test]
fn another_devices_assignment() {
    let trust = pinned(&FIRST);
    for device in ["pump-8", "", "pump-77"] {
        let message = assignment(&Desired { device, ..desired(1, &[]) }, &[3]);
        assert_eq!(trust.assignment(&message, DEVICE, AT, &Dalek), Err(Refused::Device));
    }
}

#[test]
fn endless_data() {
    let trust = pinned(&FIRST);
    let mut long = assign(1, 7);
    long.resize(dunlin_protocol::limits::MAX_DOWN_MESSAGE + 1, 0);
    let refused = trust.assignment(&long, DEVICE, AT, &Dalek);
    assert_eq!(refused, Err(Refused::Malformed(DecodeError::Limit { field: "desired" })));
    let mut long = FIRST.root(&[1]);
    long.resize(dunlin_protocol::limits::MAX_ROOT + 1, 0);
    assert!(matches!(trust.clone().rotate(&long, &Dalek), Err(Refused::Malformed(_))));
}

#[test]
fn roots_follow_each_other_without_a_gap() {
    // Versions that are not sequential: accepted by a version of tough (CVE-2025-2885).
    let mut trust = pinned(&FIRST);
    for number in [0, 1, 3, u32::MAX] {
        let next = Authority { number, ..FIRST }.root(&[1]);
        let refused = Refused::RootNumber { expected: 2, found: number };
        assert_eq!(trust.rotate(&next, &Dalek), Err(refused));
    }
    for number in 2..5 {
        let next = Authority { number, ..FIRST }.root(&[1]);
        assert_eq!(trust.rotate(&next, &Dalek), Ok(()));
        assert_eq!(trust.root(), number);
    }
}

#[test]
fn a_root_is_signed_by_the_old_and_by_the_new_keys() {
    let next = Authority { number: 2, root: (&[8], 1), ..FIRST };
    for signers in [&[8][..], &[1], &[], &[9, 1], &[2, 8]] {
        let refused = pinned(&FIRST).rotate(&next.root(signers), &Dalek);
        assert_eq!(refused, Err(lacks(Role::Root, 0, 1)), "{signers:?}");
    }
    let mut trust = pinned(&FIRST);
    assert_eq!(trust.rotate(&next.root(&[1, 8]), &Dalek), Ok(()));
    // The old key is worth nothing now.
    let third = Authority { number: 3, root: (&[1], 1), ..FIRST };
    assert_eq!(trust.rotate(&third.root(&[1]), &Dalek), Err(lacks(Role::Root, 0, 1)));
    // One that nobody signed is no root to begin with either.
    assert_eq!(Trust::pin(&FIRST.root(&[]), &Dalek), Err(lacks(Role::Root, 0, 1)));
}

#[test]
fn a_root_without_a_usable_role_locks_no_one_out() {
    let usable = |role| [PublicKey(key(1).public())].map(|key| (role, 1, vec![key]));
    let good = [usable(Role::Root), usable(Role::Release), usable(Role::Director)].concat();
    let mut broken = Vec::new();
    for index in 0..3 {
        for (threshold, keys) in [(0, 1), (2, 1), (1, 0)] {
            let mut roles = good.clone();
            roles[index].1 = threshold;
            roles[index].2.truncate(keys);
            broken.push((roles[index].0, roles));
        }
        let mut missing = good.clone();
        let (role, ..) = missing.remove(index);
        broken.push((role, missing));
        let mut twice = good.clone();
        twice.push(good[index].clone());
        broken.push((role, twice));
    }
    for (role, roles) in broken {
        let roles: Vec<RoleKeys<'_>> = roles
            .iter()
            .map(|(role, threshold, keys)| RoleKeys {
                role: *role,
                threshold: *threshold,
                keys: keys.as_slice().into(),
            })
            .collect();
        let refused = pinned(&FIRST).rotate(&root(2, 0, &roles, &[1]), &Dalek);
        assert_eq!(refused, Err(Refused::Roles { role }));
    }
}

#[test]
fn a_revoked_key() {
    let mut trust = pinned(&FIRST);
    assert_eq!(install(&mut trust, &assign(1, 7), AT), Ok(7));
    // The release key 2 was stolen: root 2 has another one.
    let next = Authority { number: 2, release: (&[4], 1), ..FIRST };
    trust.rotate(&next.root(&[1]), &Dalek).unwrap();
    assert_eq!(install(&mut trust, &assign(2, 7), AT), Err(lacks(Role::Release, 0, 1)));
    let release = version(7).release(&[4]);
    let message = assignment(&desired(3, &[version(7).slot(&release)]), &[3]);
    assert_eq!(install(&mut trust, &message, AT), Ok(7));
    // And so was the director's key 3.
    let third = Authority { number: 3, director: (&[6], 1), ..next };
    trust.rotate(&third.root(&[1]), &Dalek).unwrap();
    let stolen = assignment(&desired(9, &[version(7).slot(&release)]), &[3]);
    assert_eq!(install(&mut trust, &stolen, AT), Err(lacks(Role::Director, 0, 1)));
}

#[test]
fn a_device_that_was_off_asks_for_the_roots_it_lacks() {
    let mut trust = pinned(&FIRST);
    let next = Authority { number: 2, director: (&[6], 1), ..FIRST };
    let release = version(7).release(&[2]);
    let slots = [version(7).slot(&release)];
    let message = assignment(&Desired { root: 2, ..desired(1, &slots) }, &[6]);
    let missing = Refused::RootMissing { known: 1, needed: 2 };
    assert_eq!(install(&mut trust, &message, AT), Err(missing));
    trust.rotate(&next.root(&[1]), &Dalek).unwrap();
    assert_eq!(install(&mut trust, &message, AT), Ok(7));
}

#[test]
fn fast_forward_is_undone_by_new_keys_and_by_nothing_else() {
    let mut trust = pinned(&FIRST);
    let release = support::Version { floor: u32::MAX, ..version(u32::MAX) }.release(&[2]);
    let slots = [version(u32::MAX).slot(&release)];
    let far =
        Desired { generation: u64::MAX, issued_unix_s: u64::MAX, expires_unix_s: 0, ..desired(0, &slots) };
    assert_eq!(install(&mut trust, &assignment(&far, &[3]), AT), Ok(u32::MAX));
    assert!(matches!(install(&mut trust, &assign(1, 7), AT), Err(Refused::Older { .. })));
    // A root that keeps the director's key beside a new one keeps the counter: the old key could replay.
    let beside = Authority { number: 2, director: (&[3, 6], 1), release: (&[2, 4], 1), ..FIRST };
    trust.rotate(&beside.root(&[1]), &Dalek).unwrap();
    assert!(matches!(install(&mut trust, &assign(1, 7), AT), Err(Refused::Older { .. })));
    let instead = Authority { number: 3, director: (&[7], 1), release: (&[5], 1), ..FIRST };
    trust.rotate(&instead.root(&[1]), &Dalek).unwrap();
    let release = version(7).release(&[5]);
    let message = assignment(&desired(1, &[version(7).slot(&release)]), &[7]);
    assert_eq!(install(&mut trust, &message, AT), Ok(7));
}

#[test]
fn floors_of_more_models_than_there_is_room_for_are_refused_not_forgotten() {
    let mut trust = pinned(&FIRST);
    for n in 0..=MAX_FLOORS as u32 {
        let name = format!("model-{n}");
        let release = Release {
            model: &name,
            version: 1,
            digest: [1; 32],
            size: 5,
            issued_unix_s: NOW,
            expires_unix_s: 0,
            floor: 1,
            hardware: (&[]).into(),
        };
        let mut bytes = vec![0; 1024];
        let len = release.encode(&mut bytes).unwrap();
        bytes.truncate(len);
        let mut message = vec![0; 1024];
        let signature = key(2).sign::<Release<'_>>(&bytes);
        let len = write_signed(&bytes, (&[signature]).into(), &mut message).unwrap();
        let slot = dunlin_protocol::DesiredSlot { name: &name, size: 5, ..version(1).slot(&message[..len]) };
        let result = trust.release(&slot, HARDWARE, AT, &Dalek).map(|release| release.version);
        let expected = if n < MAX_FLOORS as u32 { Ok(1) } else { Err(Refused::Full) };
        assert_eq!(result, expected, "{n}");
    }
    assert_eq!(Trust::decode(&trust.encode()), Ok(trust));
}

#[test]
fn what_is_remembered_is_read_whole_or_not_at_all() {
    let mut trust = pinned(&FIRST);
    install(&mut trust, &assign(1, 7), AT).unwrap();
    let bytes = trust.encode();
    assert_eq!(Trust::decode(&bytes), Ok(trust));
    for short in 0..bytes.len() {
        assert!(Trust::decode(&bytes[..short]).is_err());
    }
    assert!(Trust::decode(&[&bytes[..], &[0]].concat()).is_err());
    assert!(Trust::decode(&[&[2], &bytes[1..]].concat()).is_err());
}

/// What a verifier may accept by RFC 8032, but must not here.
#[test]
fn the_verifier_is_strict() {
    use dunlin_trust::Verifier as _;
    let message = [7; 32];
    let signed = key(1).sign::<Desired<'_>>(b"bytes");
    let digest = dunlin_trust::digest::<Desired<'_>>(b"bytes");
    assert!(Dalek.verify(&signed.key, &digest, &signed.signature));
    assert!(!Dalek.verify(&signed.key, &message, &signed.signature));
    // The neutral element as key and as R, s = 0: valid over every message to a verifier that is not strict.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    assert!(!Dalek.verify(&neutral, &message, &signature));
    // s + L: a second signature for the same message.
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut other = signed.signature;
    let mut carry = 0;
    for (byte, l) in other[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(l) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert!(!Dalek.verify(&signed.key, &digest, &other));
}
