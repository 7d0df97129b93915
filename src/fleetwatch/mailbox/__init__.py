"""The lab's mailbox: stands in for the providers of all channels, shows what arrives, fails on demand."""
