//! What happens to the connection, for people.

use dunlin_agent::Agent;

use super::tell;

/// Tells people on standard error when the connection comes and goes.
pub(super) fn follow(agent: &Agent) {
    let mut status = agent.watch();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
        let mut told: Option<(bool, Option<String>)> = None;
        runtime.block_on(async {
            loop {
                let now = status.borrow_and_update().clone();
                let news = (now.connected, now.disconnected_because.clone());
                if told.as_ref() != Some(&news) && (now.connected || now.disconnected_because.is_some()) {
                    match &now.disconnected_because {
                        _ if now.connected => tell("connected"),
                        Some(reason) => tell(&format!("not connected: {reason}; trying again")),
                        None => {}
                    }
                    told = Some(news);
                }
                if status.changed().await.is_err() {
                    break;
                }
            }
        });
    });
}
