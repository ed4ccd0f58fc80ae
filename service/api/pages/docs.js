// The API from its own description, by Swagger UI, which the service serves itself.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#docs", deepLinking: true });
