//! `GET /api/v1/live`: live events as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Problem;
use crate::access::{Action, Caller, Resource, Visible, authorize};
use crate::app::App;
use crate::limits;
use crate::live::LiveEvent;

/// The route of live events.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(live))
}

/// Sends what happens from now on.
///
/// Events are hints for people who look: each server process tells of its own, and a slow reader loses some; the event
/// `lagged` then says how many. The stream ends after 15 minutes at most; read the lists again and reconnect.
#[utoipa::path(get, path = "/live", operation_id = "live", tag = "live",
    responses((status = 200, description = "Server-sent events: `data` is a LiveEvent, `event` its type",
        body = LiveEvent, content_type = "text/event-stream")))]
async fn live(
    State(app): State<App>,
    caller: Caller,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    authorize(&caller, Action::Read, Resource::Listing)?;
    if app.live.readers() >= limits::LIVE_READERS {
        return Err(Problem::too_many_requests(10));
    }
    let reader = Reader {
        events: app.live.subscribe(),
        caller,
        // A first comment makes proxies and browsers show the answer's head.
        ready: VecDeque::from([Event::default().comment("live")]),
        ends: Instant::now() + limits::LIVE_STREAM,
        app,
    };
    let stream = stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(limits::LIVE_KEEP_ALIVE)))
}

/// One client's view of the events.
struct Reader {
    app: App,
    caller: Caller,
    events: broadcast::Receiver<Arc<LiveEvent>>,
    ready: VecDeque<Event>,
    ends: Instant,
}

impl Reader {
    /// The next event for this client; `None` when the stream is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let received = tokio::select! {
                () = self.app.shutdown.cancelled() => return None,
                () = tokio::time::sleep_until(self.ends) => return None,
                received = self.events.recv() => received,
            };
            match received {
                Ok(event) if sees(&self.caller, &event) => {
                    self.ready.extend(Event::default().event(event.name()).json_data(&*event).ok());
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    let data = serde_json::json!({ "type": "lagged", "missed": missed });
                    self.ready.extend(Event::default().event("lagged").json_data(data).ok());
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Whether the event lies inside the caller's scope.
fn sees(caller: &Caller, event: &LiveEvent) -> bool {
    let model = match (caller.models(), event.model()) {
        (Visible::All, _) => true,
        (Visible::Only(own), Some(model)) => own == model,
        (Visible::Only(_), None) | (Visible::Nothing, _) => false,
    };
    let fleet = match caller.fleets() {
        Visible::All => true,
        Visible::Only(own) => own == event.fleet(),
        // A token for a model sees that model's events in every fleet.
        Visible::Nothing => event.model().is_some(),
    };
    model && fleet
}
