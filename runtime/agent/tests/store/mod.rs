//! A server of artifacts and roots over HTTP that misbehaves as it is told.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How it misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Good,
    /// One bit is another.
    Tampered,
    /// It never ends.
    Endless,
    /// It says, and has, one byte more.
    Longer,
    /// Every answer ends after so many bytes.
    Breaks { after: usize },
    /// Every answer ends before its first byte.
    Silent,
    /// There is no such artifact.
    Gone,
    /// It gives another part than it was asked for.
    Lies,
    /// It sends the device elsewhere.
    Moved,
    /// It asks to wait.
    Busy { seconds: u32 },
    /// It always gives everything.
    Rangeless,
}

#[derive(Default)]
struct Inside {
    artifacts: BTreeMap<String, Vec<u8>>,
    roots: BTreeMap<u32, Vec<u8>>,
    mood: Mood,
    /// Artifacts that were asked for, and from which byte on.
    fetches: Vec<(String, u64)>,
    busy: Vec<Instant>,
    /// Further answers, if there is a limit.
    left: Option<u32>,
}

pub(crate) struct Store {
    address: SocketAddr,
    inside: Arc<Mutex<Inside>>,
    _accept: tokio::task::JoinHandle<()>,
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Store {
    pub(crate) async fn start() -> Store {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inside = Arc::<Mutex<Inside>>::default();
        let shared = Arc::clone(&inside);
        let accept = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, Arc::clone(&shared)));
            }
        });
        Store { address, inside, _accept: accept }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn url(&self, digest: &[u8]) -> String {
        format!("{}/artifacts/{}", self.address(), hex(digest))
    }

    pub(crate) fn put(&self, artifact: &[u8]) {
        self.inside().artifacts.insert(hex(&artifact[48..80]), artifact.to_vec());
    }

    pub(crate) fn put_root(&self, number: u32, root: Vec<u8>) {
        self.inside().roots.insert(number, root);
    }

    pub(crate) fn mood(&self, mood: Mood) {
        let mut inside = self.inside();
        inside.mood = mood;
        inside.left = None;
    }

    /// From the answer after so many on, answers end before their first byte.
    pub(crate) fn only(&self, answers: u32) {
        self.inside().left = Some(answers);
    }

    /// From which bytes on an artifact was asked for, in order.
    pub(crate) fn fetches(&self, digest: &[u8]) -> Vec<u64> {
        let digest = hex(digest);
        let fetches = self.inside().fetches.clone();
        fetches.into_iter().filter(|(asked, _)| *asked == digest).map(|(_, offset)| offset).collect()
    }

    /// Times between requests that were answered with a wish to wait, when there were so many of them.
    pub(crate) async fn busy_gaps(&self, requests: usize) -> Vec<Duration> {
        while self.inside().busy.len() < requests {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let busy = self.inside().busy.clone();
        busy.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

async fn answer(stream: TcpStream, inside: Arc<Mutex<Inside>>) {
    let mut stream = BufReader::new(stream);
    let (mut path, mut from) = (String::new(), None);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(request) = line.strip_prefix("get ") {
            path = request.split(' ').next().unwrap_or_default().to_owned();
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse::<u64>().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    // It may have gone.
    let _ = respond(stream.into_inner(), &path, from, &inside).await;
}

/// What is found, and the mood of the moment.
fn look(path: &str, from: Option<u64>, inside: &Mutex<Inside>) -> (Option<Vec<u8>>, Mood) {
    let mut inside = inside.lock().unwrap();
    if let Some(number) = path.strip_prefix("/api/v1/trust/roots/") {
        return (
            number.parse().ok().and_then(|number: u32| inside.roots.get(&number).cloned()),
            Mood::Rangeless,
        );
    }
    let digest = path.trim_start_matches("/artifacts/").to_owned();
    inside.fetches.push((digest.clone(), from.unwrap_or(0)));
    let mut mood = inside.mood;
    if let Some(left) = &mut inside.left {
        match left.checked_sub(1) {
            Some(fewer) => *left = fewer,
            None => mood = Mood::Silent,
        }
    }
    if matches!(mood, Mood::Busy { .. }) {
        inside.busy.push(Instant::now());
    }
    (inside.artifacts.get(&digest).cloned(), mood)
}

async fn respond(
    mut stream: TcpStream,
    path: &str,
    from: Option<u64>,
    inside: &Mutex<Inside>,
) -> std::io::Result<()> {
    let (found, mood) = look(path, from, inside);
    let found = found.filter(|_| mood != Mood::Gone);
    let head = |status: &str, more: &str| format!("HTTP/1.1 {status}\r\nconnection: close\r\n{more}\r\n");
    let Some(mut bytes) = found else {
        let body = "{\"detail\":\"there is no such artifact\"}";
        let head = head("404 Not Found", &format!("content-length: {}\r\n", body.len()));
        return stream.write_all(format!("{head}{body}").as_bytes()).await;
    };
    if let Mood::Busy { seconds } = mood {
        let head =
            head("503 Service Unavailable", &format!("retry-after: {seconds}\r\ncontent-length: 0\r\n"));
        return stream.write_all(head.as_bytes()).await;
    }
    if mood == Mood::Moved {
        let head = head("302 Found", "location: http://127.0.0.1:1/\r\ncontent-length: 0\r\n");
        return stream.write_all(head.as_bytes()).await;
    }
    let size = bytes.len();
    match mood {
        Mood::Tampered => bytes[size / 2] ^= 1,
        Mood::Longer => bytes.push(0),
        _ => {}
    }
    if mood == Mood::Endless {
        stream.write_all(head("200 OK", "").as_bytes()).await?;
        loop {
            stream.write_all(&bytes).await?;
        }
    }
    let from = from.filter(|_| mood != Mood::Rangeless);
    let offset = usize::try_from(from.unwrap_or(0)).unwrap().min(bytes.len());
    let part = &bytes[offset..];
    let length = format!("content-length: {}\r\n", part.len());
    let head = match (from, mood) {
        (_, Mood::Lies) => {
            head("206 Partial Content", &format!("{length}content-range: bytes 7-{}/{size}\r\n", size - 1))
        }
        (Some(from), _) => {
            let range = format!("{length}content-range: bytes {from}-{}/{size}\r\n", size - 1);
            head("206 Partial Content", &range)
        }
        (None, _) => head("200 OK", &length),
    };
    stream.write_all(head.as_bytes()).await?;
    let end = match mood {
        Mood::Silent => 0,
        Mood::Breaks { after } => after.min(part.len()),
        _ => part.len(),
    };
    stream.write_all(&part[..end]).await?;
    stream.shutdown().await
}
