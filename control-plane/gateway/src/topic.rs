//! What a device may publish and subscribe to.

/// The level below `d/{device}/up/`, if `topic` is such a topic with exactly one more level.
pub(crate) fn up_level<'a>(device: &str, topic: &'a str) -> Option<&'a str> {
    let level = topic.strip_prefix("d/")?.strip_prefix(device)?.strip_prefix("/up/")?;
    (!level.is_empty() && !level.contains(['/', '+', '#', '\0'])).then_some(level)
}

/// Whether `filter` selects nothing but messages to `device`.
pub(crate) fn may_subscribe(device: &str, filter: &str) -> bool {
    let below = || filter.strip_prefix("d/")?.strip_prefix(device)?.strip_prefix("/down/");
    below().is_some_and(|below| !below.is_empty() && is_valid_filter(below))
}

/// Wildcards stand alone in their level, `#` only in the last one (MQTT 5, 4.7.1).
fn is_valid_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        match level {
            "+" => {}
            "#" => return levels.peek().is_none(),
            level if level.contains(['+', '#', '\0']) => return false,
            _ => {}
        }
    }
    true
}

/// Whether `filter`, a valid one, selects `topic`.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let mut filter = filter.split('/');
    let mut topic = topic.split('/');
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            // `a/#` selects `a` too.
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishes_only_to_its_own_up_topics() {
        assert_eq!(up_level("a", "d/a/up/report"), Some("report"));
        for foreign in [
            "d/b/up/report",
            "d/a/up/",
            "d/a/up",
            "d/a/up/report/x",
            "d/a/down/ack",
            "d/aa/up/report",
            "d//up/report",
            "x/a/up/report",
            "/d/a/up/report",
            "d/a/up/+",
            "",
        ] {
            assert_eq!(up_level("a", foreign), None, "{foreign}");
        }
        // A device whose id is a prefix of another's does not reach it.
        assert_eq!(up_level("a", "d/ab/up/report"), None);
    }

    #[test]
    fn subscribes_only_to_its_own_down_topics() {
        for own in ["d/a/down/#", "d/a/down/+", "d/a/down/ack", "d/a/down/ack/#", "d/a/down/+/x"] {
            assert!(may_subscribe("a", own), "{own}");
        }
        for foreign in [
            "#",
            "+/+/down/#",
            "d/+/down/#",
            "d/b/down/#",
            "d/a/#",
            "d/a/up/#",
            "d/a/down/",
            "d/a/down",
            "d/a/down/#/x",
            "d/a/down/x#",
            "d/a/down/x+",
            "$share/g/d/a/down/#",
            "",
        ] {
            assert!(!may_subscribe("a", foreign), "{foreign}");
        }
    }

    #[test]
    fn filters_select() {
        for (filter, topic, selects) in [
            ("d/a/down/#", "d/a/down/ack", true),
            ("d/a/down/#", "d/a/down", true),
            ("d/a/down/+", "d/a/down/ack", true),
            ("d/a/down/+", "d/a/down/ack/x", false),
            ("d/a/down/ack", "d/a/down/ack", true),
            ("d/a/down/ack", "d/a/down/desired", false),
            ("d/a/down/ack/#", "d/a/down/ack", true),
            ("d/a/down/ack/x", "d/a/down/ack", false),
        ] {
            assert_eq!(matches(filter, topic), selects, "{filter} {topic}");
        }
    }
}
