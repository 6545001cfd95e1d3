//! SCRAM against the RFCs' examples, PostgreSQL's verifiers, and independent peers.
