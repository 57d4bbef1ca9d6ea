//! The models of a slot that the control plane fills: trial, the way back, what is brought along, and what cannot be.

#[path = "../../trust/tests/support/mod.rs"]
#[allow(dead_code, reason = "not all of it is used here")]
mod owner;
mod site;
mod store;
mod support;

use std::sync::atomic::Ordering;

use dunlin_agent::{Agent, EventKind, ModelSettings, ModelsError, Settings, SlotError};
use dunlin_protocol::SlotStatus;
use owner::{FIRST, Version};
use site::{Site, made};
use support::model_named;

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_fails_too_often_on_trial_gives_way_and_is_tried_again_only_when_assigned_again() {
    let mut site = Site::new().await;
    let second = made(2);
    site.store.put(&second.bytes);
    site.counted.failing.store(2, Ordering::Relaxed);
    site.assign(&second.version, |_| {});
    site.told(1, SlotStatus::Running, "version 2 too many inferences failed on trial").await;
    site.event(EventKind::Reverted, "too many inferences failed").await;
    // A third of them is within bounds now. The bytes are still there: nothing is fetched again.
    site.assign(&second.version, |assignment| {
        assignment.settings = vec![("trial.windows", "2"), ("trial.max_failures_permille", "400")];
    });
    site.runs(2).await;
    site.finish(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_the_application_cannot_start_gives_way_with_what_the_application_says() {
    let mut site = Site::new().await;
    let second = made(2);
    site.store.put(&second.bytes);
    site.counted.unusable.store(2, Ordering::Relaxed);
    site.assign(&second.version, |_| {});
    let reason = "version 2 could not be started: this application has no such sensor";
    site.told(1, SlotStatus::Running, reason).await;
    site.event(EventKind::Reverted, "no such sensor").await;
    site.finish(&[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_under_which_the_device_starts_again_and_again_gives_way() {
    let mut site = Site::new().await;
    let second = made(2);
    site.store.put(&second.bytes);
    site.assign(&second.version, |assignment| {
        assignment.settings = vec![("trial.windows", "60000"), ("trial.boots", "2")];
    });
    site.told(2, SlotStatus::Trial, "").await;
    for status in [SlotStatus::Trial, SlotStatus::Running] {
        site.stop().await;
        site.plane.state().told.clear();
        site.start(Some(&FIRST.root(&[1])));
        match status {
            SlotStatus::Trial => site.told(2, status, "").await,
            _ => site.told(1, status, "version 2 the device restarted too often on trial").await,
        }
    }
    site.event(EventKind::Reverted, "restarted too often").await;
    site.finish(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_brought_along_runs_while_nothing_is_assigned() {
    let mut site = Site::empty().await;
    site.built_in = Some(made(9).bytes);
    site.start(Some(&FIRST.root(&[1])));
    site.runs(9).await;
    let first = made(1);
    site.store.put(&first.bytes);
    site.assign(&first.version, |_| {});
    site.runs(1).await;
    // Taken back.
    let nothing = Version { digest: [0; 32], size: 0, ..owner::version(0) };
    site.assign(&nothing, |assignment| assignment.release = vec![]);
    site.runs(9).await;
    site.stop().await;
    site.built_in = None;
    site.plane.state().told.clear();
    site.start(Some(&FIRST.root(&[1])));
    site.told(0, SlotStatus::Empty, "").await;
    site.finish(&[1, 9]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_that_has_decayed_on_disk_gives_way_to_the_other_and_is_fetched_again() {
    let mut site = Site::new().await;
    let second = made(2);
    site.store.put(&second.bytes);
    site.assign(&second.version, |_| {});
    site.runs(2).await;
    site.stop().await;
    let bank = site.folder.path().join("slots/main/b.dunlin");
    let mut bytes = std::fs::read(&bank).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bank, bytes).unwrap();
    site.start(Some(&FIRST.root(&[1])));
    // Version 1 runs until version 2 has been fetched again.
    site.event(EventKind::Reverted, "could not be started").await;
    site.plane.state().told.clear();
    site.runs(2).await;
    assert_eq!(site.store.fetches(&second.version.digest), [0, 0]);
    site.finish(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_the_application_fills_or_does_not_have_say_so() {
    let mut site = Site::empty().await;
    let identity = dunlin_agent::Identity {
        server: site.store.address(),
        ..support::identity(site.plane.address, owner::DEVICE)
    };
    let root = Some(FIRST.root(&[1]));
    let settings = Settings { root, ..support::settings(Some(site.folder.path())) };
    let agent = Agent::start(identity, settings).unwrap();
    let first = made(1);
    site.store.put(&first.bytes);
    site.assign(&first.version, |_| {});
    let slot = agent.slot("other", &model_named("own")).unwrap();
    // What an application may have forgotten is told after a while.
    site.told(0, SlotStatus::Failed, "no application on this device has this slot").await;
    let fixed = agent.slot("main", &model_named("own")).unwrap();
    let own = |told: &(String, [u8; 32], SlotStatus, String)| {
        told.0 == "main" && told.1 == fixed.model() && told.3.contains("brings its own model")
    };
    site.plane.until(|state| state.told.iter().any(own)).await;

    let error = agent.models("main", ModelSettings::default()).err().unwrap();
    assert!(matches!(error, ModelsError::Taken { .. }), "{error}");
    let error = agent.models("", ModelSettings::default()).err().unwrap();
    assert!(matches!(error, ModelsError::Slot(SlotError::Name { .. })), "{error}");
    let mut models = agent.models("filled", ModelSettings::default()).unwrap();
    let error = agent.slot("filled", &model_named("own")).err().unwrap();
    assert!(matches!(error, SlotError::Filled { .. }), "{error}");
    assert!(models.current().is_none() && slot.name() == "other");
    agent.stop_async(support::SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_may_wait_for_the_next_model() {
    let mut site = Site::empty().await;
    let identity = dunlin_agent::Identity {
        server: site.store.address(),
        ..support::identity(site.plane.address, owner::DEVICE)
    };
    let root = Some(FIRST.root(&[1]));
    let settings = Settings { root, ..support::settings(Some(site.folder.path())) };
    let agent = Agent::start(identity, settings).unwrap();
    let mut models = agent.models("main", ModelSettings::default()).unwrap();
    for number in [1, 2] {
        let next = made(number);
        site.store.put(&next.bytes);
        site.assign(&next.version, |_| {});
        models.changed().await;
        assert!(models.has_changed(), "until it is looked at");
        let slot = models.current().unwrap();
        assert!(slot.model() == next.version.digest && !models.has_changed());
        assert_eq!(slot.artifact(), next.bytes);
        // The next one is only begun when this one is kept.
        for _ in 0..50 {
            support::infer(&slot, 0);
        }
        site.runs(number).await;
    }
    agent.stop_async(support::SOON).await;
}

#[test]
fn models_need_a_place_where_they_are_kept() {
    let identity = support::identity(([127, 0, 0, 1], 1).into(), owner::DEVICE);
    let agent = Agent::start(identity, support::settings(None)).unwrap();
    let error = agent.models("main", ModelSettings::default()).err().unwrap();
    assert!(error.to_string().contains("state_dir"), "{error}");
}
