"""The lab's mailbox: stands in for SendGrid and an SMTP server, shows what arrives, fails on demand."""
