//! An agent that is killed again and again (SIGKILL) at random moments loses nothing that was closed, and nothing
//! counts twice.

#![cfg(unix)]

mod support;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dunlin_agent::{Agent, EventKind};
use support::{CLASSES, Plane, SOON, identity, infer, model, settings};

const ADDRESS: &str = "DUNLIN_TEST_ADDRESS";
const FOLDER: &str = "DUNLIN_TEST_FOLDER";
const LIFE: &str = "DUNLIN_TEST_LIFE";

fn agent(address: SocketAddr, folder: &Path) -> Agent {
    let mut settings = settings(Some(folder));
    settings.limits.events = 4000;
    settings.limits.items = 5000;
    settings.schedule.runs = 25;
    Agent::start(identity(address, "pump-7"), settings).unwrap()
}

/// The child: counts inferences of the class that its life has, and sends events with numbers of their own. Writes
/// down what it is about to count, and what is closed for sure.
#[test]
fn child() {
    let (Ok(address), Ok(folder), Ok(life)) =
        (std::env::var(ADDRESS), std::env::var(FOLDER), std::env::var(LIFE))
    else {
        return;
    };
    let (folder, life) = (PathBuf::from(folder), life.parse::<usize>().unwrap());
    let mut ledger = OpenOptions::new().create(true).append(true).open(folder.join("ledger")).unwrap();
    let agent = agent(address.parse().unwrap(), &folder.join("state"));
    let slot = agent.slot("kws", &model()).unwrap();
    // Each line with one call, which a kill does not divide.
    let mut write = |line: String| ledger.write_all(line.as_bytes()).unwrap();
    for n in 0.. {
        write(format!("counted {life} {}\n", (n + 1) * 10));
        for _ in 0..10 {
            infer(&slot, life % CLASSES);
        }
        let number = life * 1_000_000 + n;
        agent.event("", EventKind::Other(900), number as i64, "");
        write(format!("event {number}\n"));
        write(format!("closed {life} {}\n", agent.status().inferences));
        std::thread::sleep(Duration::from_millis(3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    for life in 0..16 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(ADDRESS, plane.address.to_string())
            .env(FOLDER, folder.path())
            .env(LIFE, life.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        tokio::time::sleep(Duration::from_millis(30 + random % 400)).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // One more that only sends what is left.
    let last = agent(plane.address, &folder.path().join("state"));
    let status = last.stop_async(SOON).await;
    assert_eq!((status.waiting, status.unacknowledged), (0, 0), "{status:?}");

    let ledger = std::fs::read_to_string(folder.path().join("ledger")).unwrap();
    let (mut counted, mut closed) = (BTreeMap::<usize, u64>::new(), BTreeMap::<usize, u64>::new());
    let mut numbers = Vec::new();
    for words in ledger.lines().map(|line| line.split(' ').collect::<Vec<_>>()) {
        match words.as_slice() {
            ["counted", life, n] => drop(counted.insert(life.parse().unwrap(), n.parse().unwrap())),
            ["closed", life, n] => drop(closed.insert(life.parse().unwrap(), n.parse().unwrap())),
            ["event", number] => numbers.push(number.parse::<i64>().unwrap()),
            other => panic!("{other:?}"),
        }
    }
    let state = plane.state();
    assert_eq!(state.malformed, [""; 0]);
    // Every event that was put into the queue has arrived; none has arrived twice.
    let mut arrived: Vec<i64> =
        state.events.iter().filter(|event| event.0 == EventKind::Other(900)).map(|event| event.1).collect();
    arrived.sort_unstable();
    assert!(arrived.windows(2).all(|pair| pair[0] != pair[1]), "an event counted twice");
    assert!(numbers.iter().all(|number| arrived.binary_search(number).is_ok()), "an event was lost");
    // Of one life at most one event was put into the queue and not written down.
    assert!(arrived.len() <= numbers.len() + 16, "{} {}", arrived.len(), numbers.len());
    // Every closed window has arrived, and not more than was counted.
    let sums = |by_life: &BTreeMap<usize, u64>| {
        let mut sums = [0; CLASSES];
        by_life.iter().for_each(|(life, n)| sums[life % CLASSES] += n);
        sums
    };
    let (closed, counted) = (sums(&closed), sums(&counted));
    for class in 0..CLASSES {
        let n = state.classes[class];
        assert!(closed[class] <= n && n <= counted[class], "{closed:?} {:?} {counted:?}", state.classes);
    }
    assert!(arrived.len() > 100, "{} events", arrived.len());
}
