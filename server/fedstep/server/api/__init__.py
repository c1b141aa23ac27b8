"""The gRPC services: they translate, and leave every decision to coordination."""
