//! Close codes: one [`Close`] per documented reason for ending a connection.

/// A close code and its reason word. A client may reconnect after 4000–4499, and should not after 4500–4999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// 1000: the client closed the connection.
    Normal,
    /// 1002: the received bytes are not valid WebSocket frames.
    Protocol,
    /// 1003: the client sent a binary message.
    Unsupported,
    /// 1007: text that is not UTF-8.
    NotUtf8,
    /// 1009: a message exceeds the size limit.
    TooBig,
    /// 1013: no capacity at the moment.
    Busy,
    /// 4000: the client did not keep up.
    SlowConsumer,
    /// 4001: the gateway is shutting down.
    Shutdown,
    /// 4002: the client answered no ping in time.
    NoPong,
    /// 4500: the token is missing or wrong.
    Auth,
    /// 4502: a limit of the gateway is exceeded.
    Limit,
    /// 4503: the room has ended.
    RoomEnded,
}

impl Close {
    /// The status code in the close frame.
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

    /// The reason word in `bye` and in the close frame.
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

    /// Whether the client should reconnect.
    pub const fn reconnect(self) -> bool {
        matches!(self.code(), 1013 | 4000..=4499)
    }
}
