"""What several tests share, each thing once: no test imports from another test."""
