"""An event becomes table rows: values, fields, the encoder, and the chunks it cuts for the network."""
