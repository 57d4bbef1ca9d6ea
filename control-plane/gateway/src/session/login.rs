//! CONNECT and CONNACK: what a client asks for, and what it is told.

use super::{Event, Phase, Session};
use crate::CloseReason;
use bytes::Bytes;
use mqtt_protocol_core::mqtt::{
    packet::{
        MaximumPacketSize, MaximumQos, Packet, Property, ReceiveMaximum, ServerKeepAlive,
        SessionExpiryInterval, SharedSubscriptionAvailable, SubscriptionIdentifierAvailable, v3_1_1, v5_0,
    },
    result_code::{ConnectReasonCode, ConnectReturnCode, MqttError},
};
use std::{sync::Arc, time::Duration};

/// A client must take packets of this size: CONNACK and the acknowledgements with what belongs to them.
const LEAST_PACKET_BYTES: u32 = 64;

/// The parts of a CONNECT that matter here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) client_id: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Bytes>,
}

impl Session {
    pub(super) fn connect_v3(&mut self, connect: &v3_1_1::Connect) -> Event {
        self.keep_alive = self.effective_keep_alive(connect.keep_alive());
        self.login(Connect {
            client_id: connect.client_id().to_owned(),
            username: connect.user_name().map(str::to_owned),
            password: connect.password().map(Bytes::copy_from_slice),
        })
    }

    pub(super) fn connect_v5(&mut self, connect: &v5_0::Connect) -> Event {
        self.is_v5 = true;
        for property in connect.props() {
            match property {
                Property::ReceiveMaximum(maximum) => self.send_maximum = self.send_maximum.min(maximum.val()),
                Property::AuthenticationMethod(_) => {
                    self.refuse_v5(ConnectReasonCode::BadAuthenticationMethod);
                    return Event::Close(CloseReason::BadCredential);
                }
                // Not even the answers would fit.
                Property::MaximumPacketSize(maximum) if maximum.val() < LEAST_PACKET_BYTES => {
                    self.refuse_v5(ConnectReasonCode::PacketTooLarge);
                    return Event::Close(CloseReason::PacketTooLarge);
                }
                _ => {}
            }
        }
        self.keep_alive = self.effective_keep_alive(connect.keep_alive());
        self.login(Connect {
            client_id: connect.client_id().to_owned(),
            username: connect.user_name().map(str::to_owned),
            password: connect.password().map(Bytes::copy_from_slice),
        })
    }

    fn effective_keep_alive(&self, asked: u16) -> Duration {
        match Duration::from_secs(asked.into()) {
            Duration::ZERO => self.limits.keep_alive_max,
            asked => asked.min(self.limits.keep_alive_max),
        }
    }

    fn login(&mut self, connect: Connect) -> Event {
        self.phase = Phase::Login;
        Event::Login(Box::new(connect))
    }

    /// Lets the client in as `device`.
    pub(crate) fn accept(&mut self, device: Arc<str>) {
        self.device = device;
        self.phase = Phase::Open;
        let packet = if self.is_v5 {
            self.connack_properties().and_then(|properties| {
                let connack =
                    v5_0::Connack::builder().session_present(false).reason_code(ConnectReasonCode::Success);
                connack.props(properties).build().map(Packet::from)
            })
        } else {
            let connack = v3_1_1::Connack::builder().session_present(false);
            connack.return_code(ConnectReturnCode::Accepted).build().map(Packet::from)
        };
        self.reply(packet);
    }

    /// What this server does not do, and its limits (MQTT 5, 3.2.2.3).
    fn connack_properties(&self) -> Result<Vec<Property>, MqttError> {
        let seconds = u16::try_from(self.keep_alive.as_secs()).unwrap_or(u16::MAX);
        Ok(vec![
            SessionExpiryInterval::new(0)?.into(),
            ReceiveMaximum::new(self.limits.receive_maximum)?.into(),
            MaximumQos::new(1)?.into(),
            MaximumPacketSize::new(self.limits.packet_bytes)?.into(),
            SubscriptionIdentifierAvailable::new(0)?.into(),
            SharedSubscriptionAvailable::new(0)?.into(),
            ServerKeepAlive::new(seconds)?.into(),
        ])
    }

    /// Does not let the client in.
    pub(crate) fn refuse(&mut self, reason: CloseReason) {
        let (v5, v3) = match reason {
            CloseReason::IdentityMismatch => {
                (ConnectReasonCode::ClientIdentifierNotValid, ConnectReturnCode::IdentifierRejected)
            }
            CloseReason::BadCredential => {
                (ConnectReasonCode::BadUserNameOrPassword, ConnectReturnCode::BadUserNameOrPassword)
            }
            CloseReason::Banned => (ConnectReasonCode::Banned, ConnectReturnCode::NotAuthorized),
            CloseReason::CertificateExpired => {
                (ConnectReasonCode::NotAuthorized, ConnectReturnCode::NotAuthorized)
            }
            _ => (ConnectReasonCode::ServerUnavailable, ConnectReturnCode::ServerUnavailable),
        };
        if self.is_v5 {
            self.refuse_v5(v5);
        } else {
            let connack = v3_1_1::Connack::builder().session_present(false).return_code(v3);
            self.reply(connack.build().map(Packet::from));
            self.phase = Phase::Closed;
        }
    }

    fn refuse_v5(&mut self, code: ConnectReasonCode) {
        let connack = v5_0::Connack::builder().session_present(false).reason_code(code);
        self.reply(connack.build().map(Packet::from));
        self.phase = Phase::Closed;
    }
}
