"""The protocol: what protoc makes of the .proto files beside this one."""
