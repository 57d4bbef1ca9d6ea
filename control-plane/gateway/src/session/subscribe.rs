//! What the device has subscribed to.

use super::{Event, Session};
use crate::{CloseReason, topic};
use mqtt_protocol_core::mqtt::{
    packet::{Packet, Property, Qos, RetainHandling, SubEntry, v3_1_1, v5_0},
    result_code::{DisconnectReasonCode, MqttError, SubackReasonCode, SubackReturnCode, UnsubackReasonCode},
};

/// A subscription.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) filter: String,
    pub(super) at_least_once: bool,
    /// The next answer with retained messages is for this filter.
    pub(super) wants_retained: bool,
}

impl Session {
    pub(super) fn subscribe_v3(&mut self, subscribe: &v3_1_1::Subscribe) -> Event {
        let granted = self.subscribe(subscribe.entries());
        let codes = granted.iter().map(|granted| match granted {
            Ok(false) => SubackReturnCode::SuccessMaximumQos0,
            Ok(true) => SubackReturnCode::SuccessMaximumQos1,
            Err(_) => SubackReturnCode::Failure,
        });
        let answer = v3_1_1::Suback::builder().packet_id(subscribe.packet_id()).return_codes(codes.collect());
        self.subscribed(answer.build().map(Packet::from))
    }

    pub(super) fn subscribe_v5(&mut self, subscribe: &v5_0::Subscribe) -> Event {
        if subscribe.props().iter().any(|property| matches!(property, Property::SubscriptionIdentifier(_))) {
            self.disconnect(DisconnectReasonCode::SubscriptionIdentifiersNotSupported);
            return Event::Close(CloseReason::Malformed);
        }
        let granted = self.subscribe(subscribe.entries());
        let codes = granted.iter().map(|granted| match granted {
            Ok(false) => SubackReasonCode::GrantedQos0,
            Ok(true) => SubackReasonCode::GrantedQos1,
            Err(code) => *code,
        });
        let answer = v5_0::Suback::builder().packet_id(subscribe.packet_id()).reason_codes(codes.collect());
        self.subscribed(answer.build().map(Packet::from))
    }

    /// For each entry whether QoS 1 is granted, or why nothing is.
    fn subscribe(&mut self, entries: &[SubEntry]) -> Vec<Result<bool, SubackReasonCode>> {
        entries.iter().map(|entry| self.subscribe_one(entry)).collect()
    }

    fn subscribe_one(&mut self, entry: &SubEntry) -> Result<bool, SubackReasonCode> {
        let text = entry.topic_filter();
        let refused = if text.starts_with("$share/") {
            Some(SubackReasonCode::SharedSubscriptionsNotSupported)
        } else if !topic::may_subscribe(&self.device, text) {
            Some(SubackReasonCode::NotAuthorized)
        } else {
            None
        };
        if let Some(code) = refused {
            self.tally.subscriptions_refused += 1;
            return Err(code);
        }
        let options = entry.sub_opts();
        let at_least_once = options.qos() != Qos::AtMostOnce;
        let full = self.filters.len() >= self.limits.subscriptions;
        let known = self.filters.iter_mut().find(|filter| filter.filter == text);
        let wants_retained = match options.rh() {
            RetainHandling::SendRetained => true,
            RetainHandling::SendRetainedIfNotExists => known.is_none(),
            RetainHandling::DoNotSendRetained => false,
        };
        match known {
            Some(known) => {
                known.at_least_once = at_least_once;
                known.wants_retained |= wants_retained;
            }
            None if full => return Err(SubackReasonCode::QuotaExceeded),
            None => self.filters.push(Filter { filter: text.to_owned(), at_least_once, wants_retained }),
        }
        Ok(at_least_once)
    }

    fn subscribed(&mut self, suback: Result<Packet, MqttError>) -> Event {
        self.reply(suback);
        if self.filters.iter().any(|filter| filter.wants_retained) {
            self.sent_since_asked.get_or_insert_default();
            return Event::Subscribed;
        }
        Event::Handled
    }

    pub(super) fn unsubscribe<'a>(
        &mut self,
        filters: impl Iterator<Item = &'a str>,
    ) -> Vec<UnsubackReasonCode> {
        let one = |text| match self.filters.iter().position(|filter| filter.filter == text) {
            Some(index) => {
                self.filters.swap_remove(index);
                UnsubackReasonCode::Success
            }
            None => UnsubackReasonCode::NoSubscriptionExisted,
        };
        filters.map(one).collect()
    }
}
