//! A real agent whose models come from somewhere else: what attackers and broken servers try, what the device says about
//! it, and that the model before it runs on and is counted to the last inference.

#[path = "../../trust/tests/support/mod.rs"]
#[allow(dead_code, reason = "not all of it is used here")]
mod owner;
mod site;
mod store;
mod support;

use std::time::Duration;

use dunlin_agent::EventKind;
use dunlin_protocol::{Name, SlotStatus};
use owner::{Authority, FIRST, NOW, Version};
use site::{Assignment, Site, made};
use store::Mood;
use support::State_;

/// How often an event told that an assignment was refused for this reason.
fn refusals(state: &State_, reason: &str) -> usize {
    let refused = state.events.iter().filter(|event| event.0 == EventKind::AssignmentRefused);
    refused.filter(|event| event.2.contains(reason)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_by_both_for_this_device_and_now_is_not_installed() {
    let mut site = Site::new().await;
    let second = made(2);
    site.store.put(&second.bytes);
    // Seconds since 1970 that have passed already.
    let past = NOW - 1_000_000;
    type Change<'a> = &'a dyn Fn(&mut Assignment);
    let wholes: [(Change<'_>, &str); 6] = [
        (&|assignment| assignment.director = vec![9], "signed by 0 director keys, needs 1"),
        (&|assignment| assignment.director = vec![], "signed by 0 director keys, needs 1"),
        (&|assignment| assignment.device = "pump-8", "for another device"),
        (&|assignment| (assignment.generation, assignment.issued_s) = (1, NOW), "assignment 1 is older than"),
        (&|assignment| assignment.expires_s = past, "the assignment expired"),
        (&|assignment| assignment.director = vec![2], "signed by 0 director keys, needs 1"),
    ];
    for (change, reason) in wholes {
        site.assign(&second.version, change);
        site.told(1, SlotStatus::Running, reason).await;
        // A good one in between: the same reason is told again then.
        site.assign(&made(1).version, |_| {});
        site.runs(1).await;
    }
    let parts: [(Change<'_>, &str); 7] = [
        (&|assignment| assignment.release = assignment.slot.release(&[9]), "signed by 0 release keys"),
        (&|assignment| assignment.release = assignment.slot.release(&[3]), "signed by 0 release keys"),
        (&|assignment| assignment.release = vec![], "no signed release"),
        (
            &|assignment| assignment.release = made(3).version.release(&[2]),
            "release and assignment differ in version",
        ),
        (
            &|assignment| {
                let digest = made(1).version.digest;
                assignment.release = Version { digest, ..assignment.slot }.release(&[2]);
            },
            "release and assignment differ in digest",
        ),
        (
            &|assignment| {
                assignment.release = Version { expires: past, ..assignment.slot }.release(&[2]);
            },
            "the release expired",
        ),
        (
            &|assignment| {
                let hardware = &[Name("another")];
                assignment.release = Version { hardware, ..assignment.slot }.release(&[2]);
            },
            "not for this hardware",
        ),
    ];
    for (change, reason) in parts {
        let before = refusals(&site.plane.state(), reason);
        for _ in 0..2 {
            site.assign(&second.version, change);
            site.told(1, SlotStatus::Running, reason).await;
        }
        // The second time it is no news.
        site.plane.until(|state| refusals(state, reason) > before).await;
        assert_eq!(refusals(&site.plane.state(), reason), before + 1);
        site.assign(&made(1).version, |_| {});
        site.runs(1).await;
    }
    assert_eq!(site.store.fetches(&second.version.digest), [] as [u64; 0], "nothing was even fetched");
    // And the very same version as it should be.
    site.assign(&second.version, |_| {});
    site.runs(2).await;
    site.finish(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_assignment_counts_no_more_after_a_restart() {
    let mut site = Site::new().await;
    let second = made(2);
    site.store.put(&second.bytes);
    site.assign(&second.version, |_| {});
    site.runs(2).await;
    site.stop().await;
    // The broker was made to retain the first assignment again.
    site.assign(&made(1).version, |assignment| {
        (assignment.generation, assignment.issued_s) = (1, NOW + 1);
    });
    site.start(Some(&FIRST.root(&[1])));
    site.told(2, SlotStatus::Running, "assignment 1 is older than 2").await;
    site.finish(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_counts_no_more_and_roots_are_followed_one_by_one() {
    let mut site = Site::new().await;
    let second = made(2);
    site.store.put(&second.bytes);
    // Key 2 was stolen: root 2 names key 4, root 3 another director.
    let after = Authority { number: 2, release: (&[4], 1), ..FIRST };
    let last = Authority { number: 3, director: (&[5], 1), ..after };
    // Somebody without root keys makes root 2.
    site.store.put_root(2, after.root(&[9]));
    site.assign(&second.version, |assignment| assignment.root = 3);
    site.told(1, SlotStatus::Running, "root 2 is needed, but signed by 0 root keys").await;
    site.stop().await;
    site.store.put_root(2, after.root(&[1]));
    site.store.put_root(3, last.root(&[1]));
    site.start(Some(&FIRST.root(&[1])));
    // Both roots are there now: the director of root 1 is not believed any more.
    site.told(1, SlotStatus::Running, "signed by 0 director keys").await;
    site.assign(&second.version, |assignment| (assignment.root, assignment.director) = (3, vec![5]));
    site.told(1, SlotStatus::Running, "signed by 0 release keys").await;
    site.assign(&second.version, |assignment| {
        (assignment.root, assignment.director) = (3, vec![5]);
        assignment.release = assignment.slot.release(&[4]);
    });
    site.runs(2).await;
    site.stop().await;
    // What it believes survives a restart, whatever root is built in.
    site.start(Some(&FIRST.root(&[1])));
    site.generation += 1;
    site.assign(&made(1).version, |_| {});
    site.told(2, SlotStatus::Running, "signed by 0 director keys").await;
    site.finish(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_root_installs_nothing_until_its_server_shows_one() {
    let mut site = Site::empty().await;
    site.start(None);
    let first = made(1);
    site.store.put(&first.bytes);
    site.assign(&first.version, |assignment| assignment.root = 0);
    let nothing = |reason: &'static str| {
        move |state: &State_| {
            let last = state.told.last();
            last.is_some_and(|told| told.1 == [0; 32] && told.3.contains(reason))
        }
    };
    site.plane.until(nothing("dunlin keys create")).await;
    // The server has no root with that number.
    site.assign(&first.version, |_| {});
    site.plane.until(nothing("root 1 is needed, but")).await;
    site.stop().await;
    site.store.put_root(1, FIRST.root(&[1]));
    site.start(None);
    site.runs(1).await;
    site.finish(&[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_than_those_that_were_released_never_run() {
    let mut site = Site::new().await;
    for (number, mood) in [(2, Mood::Tampered), (3, Mood::Endless), (4, Mood::Longer)] {
        let next = made(number);
        site.store.put(&next.bytes);
        site.store.mood(mood);
        site.assign(&next.version, |_| {});
        let reason = format!("version {number} the bytes are not those that were released");
        site.told(1, SlotStatus::Running, &reason).await;
        let fetches = site.store.fetches(&next.version.digest);
        assert_eq!(fetches, [0, 0, 0], "{mood:?}: all of it three times, and then no more");
        let bank = site.folder.path().join("slots/main/b.dunlin");
        let kept = std::fs::metadata(&bank).unwrap().len();
        assert!(kept <= u64::from(next.version.size), "{mood:?}: {kept} bytes");
    }
    // A later assignment tries again.
    site.store.mood(Mood::Good);
    site.assign(&made(4).version, |_| {});
    site.runs(4).await;
    site.finish(&[1, 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_breaks_off_lies_or_is_busy_holds_the_update_up_and_no_more() {
    let mut site = Site::new().await;
    let second = made(2);
    site.store.put(&second.bytes);
    for (mood, reason) in [
        (Mood::Silent, "it ended after 0 of"),
        (Mood::Gone, "the server answers 404 there is no such artifact"),
        (Mood::Lies, "the server gives the part \"bytes 7-"),
        (Mood::Moved, "the server answers 302"),
    ] {
        site.store.mood(mood);
        site.assign(&second.version, |_| {});
        site.told(1, SlotStatus::Updating, reason).await;
    }
    // One that asks to wait is not asked again before.
    site.store.mood(Mood::Busy { seconds: 1 });
    site.told(1, SlotStatus::Updating, "the server answers 503").await;
    let gaps = site.store.busy_gaps(3).await;
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_secs(1)), "{gaps:?}");
    // One that ends every answer after some bytes is resumed where it ended, and that is enough.
    site.store.mood(Mood::Breaks { after: 100 });
    site.runs(2).await;
    let fetches = site.store.fetches(&second.version.digest);
    let resumed: Vec<u64> = fetches.into_iter().filter(|offset| *offset > 0).collect();
    let expected: Vec<u64> =
        (1..u64::from(second.version.size).div_ceil(100)).map(|part| part * 100).collect();
    assert_eq!(resumed, expected);
    site.finish(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_still_gives_a_model_that_was_begun() {
    let mut site = Site::new().await;
    let second = made(2);
    site.store.put(&second.bytes);
    site.store.mood(Mood::Breaks { after: 100 });
    site.store.only(1);
    site.assign(&second.version, |_| {});
    site.told(1, SlotStatus::Updating, "it ended after 100 of").await;
    site.store.mood(Mood::Rangeless);
    site.runs(2).await;
    site.finish(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_version_is_not_installed_any_more_whoever_assigns_it() {
    let mut site = Site::new().await;
    let third = made(3);
    site.store.put(&third.bytes);
    site.assign(&third.version, |assignment| {
        assignment.release = Version { floor: 2, ..assignment.slot }.release(&[2]);
    });
    site.runs(3).await;
    site.assign(&made(1).version, |_| {});
    site.told(3, SlotStatus::Running, "version 1 was withdrawn: 2 is the lowest").await;
    site.finish(&[1, 3]).await;
}
