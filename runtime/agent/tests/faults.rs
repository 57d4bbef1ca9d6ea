//! Whatever happens to network, server and process: everything counted arrives, and counts once.

mod support;

use std::time::Duration;

use dunlin_agent::{Agent, EventKind, Failure};
use dunlin_protocol::Desired;
use support::{
    CLASSES, CUT, FINE, FROZEN, Mood, Plane, Proxy, SOON, identity, infer, model, settings, start,
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Counts for a while, through whatever the test does meanwhile; how much of each class.
async fn count_through(agent: &Agent, rounds: usize) -> [u64; CLASSES] {
    let slot = agent.slot("kws", &model()).unwrap();
    let mut counted = [0; CLASSES];
    for round in 0..rounds {
        for n in 0..20 {
            let class = (round * 7 + n * n) % CLASSES;
            infer(&slot, class);
            counted[class] += 1;
        }
        tokio::time::sleep(ms(10)).await;
    }
    counted
}

/// Stops the agent, which gets everything acknowledged, and compares.
async fn settle(agent: Agent, plane: &Plane, counted: [u64; CLASSES]) {
    let status = agent.stop_async(SOON).await;
    assert_eq!((status.waiting, status.unacknowledged, &status.disk_fault), (0, 0, &None), "{status:?}");
    let state = plane.state();
    assert_eq!(state.classes, counted);
    assert_eq!(state.inferences, counted.iter().sum::<u64>());
    assert_eq!((state.inferences, state.closed), (status.inferences, status.windows));
    assert_eq!(state.malformed, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_arrives() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().unwrap();
    let agent = start(plane.address, Some(folder.path()));
    let slot = agent.slot("kws", &model()).unwrap();
    for n in 0..1000 {
        infer(&slot, n % 3);
        slot.label(n as u32 % 3, 1, Some(0.75));
    }
    slot.failed(Failure::Run);
    slot.failed(Failure::Input);
    let status = agent.stop_async(SOON).await;
    assert_eq!((status.inferences, status.failures, status.waiting, status.unacknowledged), (1000, 2, 0, 0));
    let state = plane.state();
    assert_eq!((state.inferences, state.failures), (1000, 2));
    assert_eq!(state.classes, [334, 333, 333, 0, 0, 0, 0, 0]);
    assert_eq!(state.labels.values().sum::<u64>(), 1000);
    assert_eq!(state.labels[&(0, 1)], 334);
    assert_eq!(state.duplicates, 0);
    assert_eq!(state.closed, status.windows);
    assert_eq!(state.events[0].0, EventKind::Restarted);
    let (slots, hardware, generation) = state.state.clone().unwrap();
    assert_eq!((slots, hardware.as_str(), generation), (vec![("kws".into(), slot.model())], "test-bench", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_acknowledgements_messages_are_kept_and_sent_again() {
    let plane = Plane::start().await;
    plane.mood(Mood::NoAcks);
    let agent = start(plane.address, None);
    let counted = count_through(&agent, 50).await;
    plane.until(|state| state.duplicates > 3).await;
    assert!(agent.status().unacknowledged > 0);
    plane.mood(Mood::Good);
    settle(agent, &plane, counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_to_commit_gets_everything_again() {
    let plane = Plane::start().await;
    plane.mood(Mood::FailsToCommit);
    let agent = start(plane.address, None);
    let counted = count_through(&agent, 100).await;
    tokio::time::sleep(ms(500)).await;
    plane.mood(Mood::Good);
    settle(agent, &plane, counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doubled_and_wrong_acknowledgements_do_no_harm() {
    let plane = Plane::start().await;
    plane.mood(Mood::Babbles);
    let agent = start(plane.address, None);
    let counted = count_through(&agent, 100).await;
    settle(agent, &plane, counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts_and_forgets_its_sessions() {
    let mut plane = Plane::start().await;
    let agent = start(plane.address, None);
    let mut counted = [0; CLASSES];
    for away in [0, 300, 50] {
        let more = count_through(&agent, 40).await;
        counted.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
        plane.restart(ms(away)).await;
    }
    settle(agent, &plane, counted).await;
    assert!(plane.state().logins >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_are_noticed_and_replaced() {
    let plane = Plane::start().await;
    let proxy = Proxy::start(plane.address).await;
    let agent = start(proxy.address, None);
    let mut counted = [0; CLASSES];
    for _ in 0..3 {
        let more = count_through(&agent, 30).await;
        counted.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
        // The other side vanishes without a word for a moment; the connections of that moment never recover.
        proxy.weather(FROZEN);
        let more = count_through(&agent, 120).await;
        counted.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
        proxy.weather(FINE);
    }
    settle(agent, &plane, counted).await;
    assert!(plane.state().logins >= 2, "{}", plane.state().logins);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_again_and_again() {
    let plane = Plane::start().await;
    let proxy = Proxy::start(plane.address).await;
    let agent = start(proxy.address, None);
    let mut counted = [0; CLASSES];
    for round in 0..20_u64 {
        let more = count_through(&agent, 5).await;
        counted.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
        proxy.weather(CUT);
        tokio::time::sleep(ms(round * 17 % 60)).await;
        proxy.weather(FINE);
    }
    settle(agent, &plane, counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_without_a_server_is_merged_kept_and_sent_after_a_restart() {
    let mut plane = Plane::start().await;
    plane.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let mut counted = [0; CLASSES];
    let mut windows = 0;
    for _ in 0..3 {
        let mut settings = settings(Some(folder.path()));
        settings.limits.items = 8;
        settings.schedule.runs = 20;
        let agent = Agent::start(identity(plane.address, "pump-7"), settings).unwrap();
        let more = count_through(&agent, 60).await;
        counted.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
        // What is there fits into the queue, however long the server is away.
        let status = agent.stop_async(ms(50)).await;
        assert!(status.waiting <= 8 && status.unacknowledged == 0 && status.merged > 10, "{status:?}");
        assert!(status.disconnected_because.is_some());
        windows += status.windows;
    }
    plane.restart(ms(0)).await;
    let agent = start(plane.address, Some(folder.path()));
    let status = agent.stop_async(SOON).await;
    assert_eq!((status.waiting, status.unacknowledged), (0, 0));
    let state = plane.state();
    assert_eq!((state.classes, state.closed), (counted, windows));
    let restarted = state.events.iter().filter(|event| event.0 == EventKind::Restarted).count();
    assert_eq!(restarted, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn merging_is_reported() {
    let mut plane = Plane::start().await;
    plane.stop().await;
    let mut settings = settings(None);
    settings.limits.items = 4;
    let agent = Agent::start(identity(plane.address, "pump-7"), settings).unwrap();
    let counted = count_through(&agent, 60).await;
    plane.restart(ms(0)).await;
    plane
        .until(|state| state.events.iter().any(|event| event.0 == EventKind::QueueMerged && event.1 > 3))
        .await;
    settle(agent, &plane, counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_desired_state_sets_the_windows_and_is_reported_back() {
    let plane = Plane::start().await;
    let mut settings = settings(None);
    settings.schedule.runs = 1000;
    settings.schedule.period_ms = 600_000;
    let agent = Agent::start(identity(plane.address, "pump-7"), settings).unwrap();
    let slot = agent.slot("kws", &model()).unwrap();
    let generation =
        |generation| move |state: &support::State_| state.state.as_ref().is_some_and(|s| s.2 == generation);
    plane.until(generation(0)).await;
    plane.desire("pump-7", &Desired { generation: 7, window_count: 10, ..Desired::default() });
    plane.until(generation(7)).await;
    for n in 0..10 {
        infer(&slot, n % CLASSES);
    }
    plane.until(|state| state.inferences == 10).await;
    // An older one is ignored.
    plane.desire("pump-7", &Desired { generation: 6, window_count: 1, ..Desired::default() });
    tokio::time::sleep(ms(100)).await;
    for n in 0..9 {
        infer(&slot, n % CLASSES);
    }
    tokio::time::sleep(ms(300)).await;
    assert_eq!(plane.state().closed, 1);
    assert_eq!(agent.status().desired_generation, 7);
    agent.stop_async(SOON).await;
    assert_eq!(plane.state().inferences, 19);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_credential_is_said_and_not_tried_at_once_again() {
    let plane = Plane::start().await;
    let mut stranger = identity(plane.address, "pump-7");
    stranger.credential = dunlin_agent::Credential::Password { password: "wrong".into() };
    let mut settings = settings(None);
    settings.uplink.longest_pause_ms = 60_000;
    let agent = Agent::start(stranger, settings).unwrap();
    plane.until(|state| state.logins > 0).await;
    let mut status = agent.watch();
    let refused = status.wait_for(|status| status.disconnected_because.is_some());
    let because = tokio::time::timeout(SOON, refused).await.unwrap().unwrap().disconnected_because.clone();
    assert!(because.unwrap().contains("credential"));
    tokio::time::sleep(ms(500)).await;
    assert_eq!(plane.state().logins, 1);
    agent.stop_async(Duration::ZERO).await;
}
