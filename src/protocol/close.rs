//! Why a connection is closed: one value per documented code.

/// A close code with the words that go with it. 4000–4499 invite the client back, 4500–4999 do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// 1000: the client asked for it.
    Normal,
    /// 1002: the bytes are no WebSocket frames.
    Protocol,
    /// 1003: a binary message.
    Unsupported,
    /// 1007: text that is not UTF-8.
    NotUtf8,
    /// 1009: a message over the limit.
    TooBig,
    /// 1013: no room at this moment.
    Busy,
    /// 4000: the client did not keep up.
    SlowConsumer,
    /// 4001: the gateway is going down.
    Shutdown,
    /// 4002: nothing was heard of the client.
    NoPong,
    /// 4500: no token, or not the right one.
    Auth,
    /// 4502: a limit of this gateway.
    Limit,
    /// 4503: the room of a replay has ended.
    RoomEnded,
}

impl Close {
    /// The number in the close frame.
    pub const fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::Protocol => 1002,
            Self::Unsupported => 1003,
            Self::NotUtf8 => 1007,
            Self::TooBig => 1009,
            Self::Busy => 1013,
            Self::SlowConsumer => 4000,
            Self::Shutdown => 4001,
            Self::NoPong => 4002,
            Self::Auth => 4500,
            Self::Limit => 4502,
            Self::RoomEnded => 4503,
        }
    }

    /// The word in `bye` and in the close frame.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Protocol => "protocol_error",
            Self::Unsupported => "text_only",
            Self::NotUtf8 => "not_utf8",
            Self::TooBig => "message_too_big",
            Self::Busy => "try_again_later",
            Self::SlowConsumer => "slow_consumer",
            Self::Shutdown => "shutdown",
            Self::NoPong => "no_pong",
            Self::Auth => "auth",
            Self::Limit => "limit",
            Self::RoomEnded => "room_ended",
        }
    }

    /// Whether a client does well to come back.
    pub const fn reconnect(self) -> bool {
        matches!(self.code(), 1013 | 4000..=4499)
    }
}
