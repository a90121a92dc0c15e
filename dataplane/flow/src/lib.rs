//! One core's life: accept, request, connect, forward, close.
