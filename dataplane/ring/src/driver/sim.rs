//! The simulated driver.

use super::{Completion, Group, Tag};
use crate::host::Address;
use crate::listener::Bound;
use crate::message::Slot;
use crate::wake::Wake;
use std::io;
use std::ptr::NonNull;

pub(crate) enum SimDriver {}

#[rustfmt::skip]
impl SimDriver {
    pub(crate) fn now_ns(&self) -> u64 { match *self {} }
    pub(crate) fn accept(&mut self, _fd: i32, _tag: Tag) { match *self {} }
    pub(crate) fn receive(&mut self, _fd: i32, _group: Group, _multishot: bool, _tag: Tag) { match *self {} }
    pub(crate) fn receive_into(&mut self, _fd: i32, _memory: NonNull<u8>, _length: u32, _tag: Tag) { match *self {} }
    pub(crate) fn send(&mut self, _fd: i32, _slot: &mut Slot, _tag: Tag) { match *self {} }
    pub(crate) fn socket(&mut self, _address: &Address) -> io::Result<i32> { match *self {} }
    pub(crate) fn connect(&mut self, _fd: i32, _address: &Address, _tag: Tag) { match *self {} }
    pub(crate) fn cancel(&mut self, _target: Tag, _tag: Tag) { match *self {} }
    pub(crate) fn close(&mut self, _fd: i32) { match *self {} }
    pub(crate) fn shutdown_write(&mut self, _fd: i32) { match *self {} }
    pub(crate) fn reset_on_close(&mut self, _fd: i32) { match *self {} }
    pub(crate) fn peer(&self, _fd: i32) -> Option<Address> { match *self {} }
    pub(crate) fn local(&self, _fd: i32) -> Option<Address> { match *self {} }
    pub(crate) fn listen(&mut self, _bound: Bound) -> io::Result<i32> { match *self {} }
    pub(crate) fn provide(&mut self, _group: Group, _id: u16, _memory: NonNull<u8>, _length: u32) { match *self {} }
    pub(crate) fn publish(&mut self) { match *self {} }
    pub(crate) fn wake(&self) -> Wake { match *self {} }
    pub(crate) fn arm_wake(&mut self, _tag: Tag) { match *self {} }
    pub(crate) fn enter(&mut self, _wait: bool, _timeout_ns: Option<u64>, _done: &mut Vec<Completion>) { match *self {} }
}
