"""The contract of the hyvideo family: components, protocols, typed values, conformance kits and the hyvideo command."""
