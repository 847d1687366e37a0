/* version: the product's version, and the protocol versions that this build speaks. */
#pragma once

#define GWP_VERSION "0.1.0"

#define GWP_PROTOCOL_MIN 1
#define GWP_PROTOCOL_MAX 1
