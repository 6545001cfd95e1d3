//! Names the first byte of each tagged message ("Message Formats"). Owns the two closed lists; refuses to know bodies.
//!
//! The same byte means different things in the two directions, hence two enums.

macro_rules! tags {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $byte:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every tag of this direction.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The message that starts with this byte, or `None` when the protocol has none.
            pub const fn of(tag: u8) -> Option<Self> {
                match tag { $($byte => Some(Self::$variant),)+ _ => None }
            }

            /// The byte that starts this message.
            pub const fn byte(self) -> u8 {
                match self { $(Self::$variant => $byte,)+ }
            }
        }
    };
}

tags! {
    /// What a client may say after startup. Any other byte is a protocol violation (08P01).
    FromClient {
        /// A simple query.
        Query = b'Q',
        /// Makes a prepared statement.
        Parse = b'P',
        /// Makes a portal from a prepared statement.
        Bind = b'B',
        /// Asks for the shape of a statement or portal.
        Describe = b'D',
        /// Runs a portal.
        Execute = b'E',
        /// Forgets a statement or portal.
        Close = b'C',
        /// Asks for the replies so far.
        Flush = b'H',
        /// Ends a batch of the extended protocol.
        Sync = b'S',
        /// Calls a function by its OID (the old fast path).
        FunctionCall = b'F',
        /// A piece of a COPY stream.
        CopyData = b'd',
        /// The client's COPY stream is complete.
        CopyDone = b'c',
        /// The client gives its COPY up.
        CopyFail = b'f',
        /// Password, SASL or GSSAPI answer during login.
        Response = b'p',
        /// Says good-bye.
        Terminate = b'X',
    }
}

tags! {
    /// What a server may say.
    FromServer {
        /// Asks for proof of identity, or says that it was accepted.
        Authentication = b'R',
        /// Process id and secret for a later cancel request.
        BackendKeyData = b'K',
        /// The server is ready for the next request; carries the transaction status.
        ReadyForQuery = b'Z',
        /// A request failed, or the connection ends.
        ErrorResponse = b'E',
        /// A warning or remark, at any time.
        NoticeResponse = b'N',
        /// A reported setting has this value now, at any time.
        ParameterStatus = b'S',
        /// Parse succeeded.
        ParseComplete = b'1',
        /// Bind succeeded.
        BindComplete = b'2',
        /// Close succeeded.
        CloseComplete = b'3',
        /// A statement succeeded; carries its command tag.
        CommandComplete = b'C',
        /// The query text held no statement.
        EmptyQueryResponse = b'I',
        /// Execute stopped at its row limit.
        PortalSuspended = b's',
        /// The described statement returns no rows.
        NoData = b'n',
        /// Parameter types of the described statement.
        ParameterDescription = b't',
        /// Columns of the rows to come.
        RowDescription = b'T',
        /// One row.
        DataRow = b'D',
        /// The server wants COPY data.
        CopyInResponse = b'G',
        /// The server will send COPY data.
        CopyOutResponse = b'H',
        /// COPY data goes both ways (replication).
        CopyBothResponse = b'W',
        /// A piece of a COPY stream.
        CopyData = b'd',
        /// The server's COPY stream is complete.
        CopyDone = b'c',
        /// Result of a FunctionCall.
        FunctionCallResponse = b'V',
        /// A NOTIFY reached this session, at any time.
        NotificationResponse = b'A',
        /// The server does not know the minor version or an option the client asked for.
        NegotiateProtocolVersion = b'v',
    }
}
