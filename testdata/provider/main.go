// Command terraform-provider-storm is a terraform provider that can be slow and
// deaf. Its one resource writes down what really exists outside of any state, so
// that a test can hold a state against it.
package main

import (
	"context"
	"log"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-framework/resource"
)

// address is how configurations name the provider; there is no such registry.
const address = "storm.test/storm/storm"

func main() {
	err := providerserver.Serve(context.Background(), func() provider.Provider { return storm{} }, providerserver.ServeOpts{Address: address})
	if err != nil {
		log.Fatal(err)
	}
}

// storm is the provider: it has no settings.
type storm struct{}

func (storm) Metadata(_ context.Context, _ provider.MetadataRequest, resp *provider.MetadataResponse) {
	resp.TypeName = "storm"
}

func (storm) Schema(context.Context, provider.SchemaRequest, *provider.SchemaResponse) {}

func (storm) Configure(context.Context, provider.ConfigureRequest, *provider.ConfigureResponse) {}

func (storm) DataSources(context.Context) []func() datasource.DataSource { return nil }

func (storm) Resources(context.Context) []func() resource.Resource {
	return []func() resource.Resource{func() resource.Resource { return thing{} }}
}
