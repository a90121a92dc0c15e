//! What Ringway's programs say to each other beside xDS: messages, clients and servers of `proto/ringway.proto`, where
//! they are described.
#![allow(missing_docs, clippy::all, reason = "written by prost; the comments of the file are kept")]

tonic::include_proto!("ringway.v1");
