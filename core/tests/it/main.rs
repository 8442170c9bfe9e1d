//! Conformance suites of staging, storage and the transfer between them, over every backend.

mod support;

mod transfer;
